//! The current names of files that may be closed and reopened, through renames and removals.
//!
//! Owns the map from names to the holders of such files; used by both worlds. A file without a name cannot be reopened,
//! which its holder sees. Lives on its shard; sees only changes through its own world, so that a reopened file is
//! compared with the former one.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};

/// The name of a file, shared by the file's holder and the map.
#[derive(Debug, Default)]
pub(crate) struct Name(RefCell<Option<PathBuf>>);

impl Name {
    pub(crate) fn new(path: PathBuf) -> Rc<Name> {
        Rc::new(Name(RefCell::new(Some(path))))
    }

    /// The file's path; `None` once it has been removed or replaced.
    pub(crate) fn path(&self) -> Option<PathBuf> {
        self.0.borrow().clone()
    }

    /// True when the file has a name.
    pub(crate) fn exists(&self) -> bool {
        self.0.borrow().is_some()
    }
}

/// The names of held files; see the module.
#[derive(Default)]
pub(crate) struct OpenNames {
    names: RefCell<BTreeMap<PathBuf, Vec<Weak<Name>>>>,
}

impl OpenNames {
    /// Makes the name follow the file from now on.
    pub(crate) fn follow(&self, name: &Rc<Name>) {
        let Some(path) = name.path() else { return };
        let mut names = self.names.borrow_mut();
        names.entry(path).or_default().push(Rc::downgrade(name));
    }

    /// Ends following: the file's holder is gone.
    pub(crate) fn forget(&self, name: &Rc<Name>) {
        let Some(path) = name.path() else { return };
        let mut names = self.names.borrow_mut();
        if let Some(holders) = names.get_mut(&path) {
            holders.retain(|holder| !std::ptr::eq(holder.as_ptr(), Rc::as_ptr(name)));
            if holders.is_empty() {
                names.remove(&path);
            }
        }
    }

    /// The names at `path` and, where it is a directory, below it.
    fn below(&self, path: &Path) -> Vec<PathBuf> {
        let names = self.names.borrow();
        let from = (Bound::Included(path.to_owned()), Bound::Unbounded);
        let found = names.range::<PathBuf, _>(from).map(|(name, _)| name);
        found
            .take_while(|name| name.starts_with(path))
            .cloned()
            .collect()
    }

    /// True when a file at `path` or below is held.
    pub(crate) fn is_held(&self, path: &Path) -> bool {
        !self.below(path).is_empty()
    }

    /// A file or directory was renamed; a file that was at `to` has lost its name.
    pub(crate) fn renamed(&self, from: &Path, to: &Path) {
        self.removed(to);
        for old in self.below(from) {
            let holders = self.names.borrow_mut().remove(&old);
            let new = match old.strip_prefix(from) {
                Ok(rest) if rest.as_os_str().is_empty() => to.to_owned(),
                Ok(rest) => to.join(rest),
                Err(_) => continue,
            };
            let holders = holders.unwrap_or_default();
            for name in holders.iter().filter_map(Weak::upgrade) {
                name.0.replace(Some(new.clone()));
            }
            self.names
                .borrow_mut()
                .entry(new)
                .or_default()
                .extend(holders);
        }
    }

    /// A file or directory has lost its name, or is about to.
    pub(crate) fn removed(&self, path: &Path) {
        for name in self.below(path) {
            let holders = self.names.borrow_mut().remove(&name);
            for holder in holders.into_iter().flatten() {
                if let Some(name) = holder.upgrade() {
                    name.0.replace(None);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Name, OpenNames};
    use std::path::{Path, PathBuf};

    #[test]
    fn names_follow_their_files() {
        let names = OpenNames::default();
        let path = |text: &str| Some(PathBuf::from(text));
        let [one, two, near] = ["/d/a-0/1.log", "/d/a-0/2.log", "/d/a-01/1.log"].map(|path| {
            let name = Name::new(path.into());
            names.follow(&name);
            name
        });
        names.renamed(Path::new("/d/a-0/1.log"), Path::new("/d/a-0/1.log.deleted"));
        assert_eq!(one.path(), path("/d/a-0/1.log.deleted"));
        names.renamed(Path::new("/d/a-0"), Path::new("/d/a-0.x-delete"));
        assert_eq!(one.path(), path("/d/a-0.x-delete/1.log.deleted"));
        assert_eq!(two.path(), path("/d/a-0.x-delete/2.log"));
        assert_eq!(near.path(), path("/d/a-01/1.log"));
        // Replaced by another file.
        names.renamed(
            Path::new("/d/a-0.x-delete/2.log"),
            Path::new("/d/a-01/1.log"),
        );
        assert_eq!(near.path(), None);
        assert_eq!(two.path(), path("/d/a-01/1.log"));
        names.forget(&two);
        assert!(!names.is_held(Path::new("/d/a-01")));
        names.removed(Path::new("/d/a-0.x-delete"));
        assert_eq!(one.path(), None);
        assert!(!names.is_held(Path::new("/d")));
    }
}
