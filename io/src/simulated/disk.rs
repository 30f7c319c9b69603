//! The simulated disk: names, files, writes in flight, and their survival.
//!
//! Owns the name space twice, visible and durable, with the changes between the two, and all inodes. A power cut
//! keeps a seeded choice of the unsynced changes; the end of a process keeps everything. Never waits: latency
//! belongs to `world`.

use super::inode::{Inode, SECTOR_BYTES};
use super::random::Random;
use crate::world::DirEntry;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Dir,
    File(u64),
}

/// A change of names, durable after a sync.
#[derive(Clone, Debug)]
pub(super) enum Change {
    Create(PathBuf, Node),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
}

impl Change {
    fn touches(&self, dir: &Path) -> bool {
        match self {
            Change::Create(path, _) | Change::Remove(path) => path.parent() == Some(dir),
            Change::Rename(from, to) => from.parent() == Some(dir) || to.parent() == Some(dir),
        }
    }
}

type Names = BTreeMap<PathBuf, Node>;

/// A write in flight on the device.
struct UnderWay {
    inode: u64,
    position: u64,
    data: Vec<u8>,
}

/// A disk with one file system.
#[derive(Default)]
pub(super) struct Disk {
    names: Names,
    durable_names: Names,
    unsynced: Vec<Change>,
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    under_way: BTreeMap<u64, UnderWay>,
    next_write: u64,
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(
        io::ErrorKind::NotFound,
        format!("{} does not exist", path.display()),
    )
}

fn is_file(names: &Names, path: &Path) -> bool {
    matches!(names.get(path), Some(Node::File(_)))
}

/// Applies a change if its parent exists: a replayed subset of the changes may lack it.
fn apply(names: &mut Names, change: &Change) -> bool {
    let has_parent = |names: &Names, path: &Path| match path.parent() {
        None => true,
        Some(parent) if parent == Path::new("/") => true,
        Some(parent) => names.get(parent) == Some(&Node::Dir),
    };
    match change {
        Change::Create(path, node) => {
            if !has_parent(names, path) {
                return false;
            }
            names.insert(path.clone(), *node);
        }
        // Nothing lies below a file, so only its own name is checked.
        Change::Remove(path) if is_file(names, path) => {
            names.remove(path);
        }
        Change::Remove(path) => names.retain(|name, _| !name.starts_with(path)),
        Change::Rename(from, to) => {
            if !names.contains_key(from) || !has_parent(names, to) {
                return false;
            }
            if is_file(names, from) && names.get(to) != Some(&Node::Dir) {
                if let Some(node) = names.remove(from) {
                    names.insert(to.clone(), node);
                }
                return true;
            }
            let mut moved = Vec::new();
            names.retain(|name, node| {
                let Ok(rest) = name.strip_prefix(from) else {
                    return !name.starts_with(to);
                };
                // Joining an empty rest would leave a trailing slash.
                let target = if rest == Path::new("") {
                    to.clone()
                } else {
                    to.join(rest)
                };
                moved.push((target, *node));
                false
            });
            names.extend(moved);
        }
    }
    true
}

impl Disk {
    pub(super) fn lookup(&self, path: &Path) -> Option<Node> {
        if path == Path::new("/") {
            return Some(Node::Dir);
        }
        self.names.get(path).copied()
    }

    pub(super) fn file(&self, path: &Path) -> io::Result<u64> {
        match self.lookup(path) {
            Some(Node::File(inode)) => Ok(inode),
            Some(Node::Dir) => Err(io::Error::new(
                io::ErrorKind::IsADirectory,
                format!("{} is a directory", path.display()),
            )),
            None => Err(not_found(path)),
        }
    }

    pub(super) fn inode(&mut self, inode: u64) -> &mut Inode {
        self.inodes
            .get_mut(&inode)
            .expect("an inode stays while the simulation runs")
    }

    /// Applies a change to the visible names; durable only after a sync.
    pub(super) fn change(&mut self, change: Change) -> io::Result<()> {
        let (Change::Create(path, _) | Change::Remove(path) | Change::Rename(path, _)) = &change;
        if !apply(&mut self.names, &change) {
            return Err(not_found(path));
        }
        self.unsynced.push(change);
        Ok(())
    }

    pub(super) fn create_file(&mut self, path: &Path) -> io::Result<u64> {
        let inode = self.next_inode;
        self.change(Change::Create(path.to_owned(), Node::File(inode)))?;
        self.next_inode += 1;
        self.inodes.insert(inode, Inode::default());
        Ok(inode)
    }

    /// Makes the changes in `dir` so far durable.
    pub(super) fn sync_dir(&mut self, dir: &Path) {
        let durable_names = &mut self.durable_names;
        self.unsynced
            .retain(|change| !change.touches(dir) || !apply(durable_names, change));
    }

    /// Makes everything durable.
    pub(super) fn sync_all(&mut self) {
        for change in std::mem::take(&mut self.unsynced) {
            apply(&mut self.durable_names, &change);
        }
        for inode in self.inodes.values_mut() {
            let now = inode.now();
            inode.sync(now);
        }
    }

    pub(super) fn list(&mut self, dir: &Path) -> io::Result<Vec<DirEntry>> {
        match self.lookup(dir) {
            Some(Node::Dir) => {}
            Some(Node::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
            None => return Err(not_found(dir)),
        }
        let mut entries = Vec::new();
        for (path, node) in &self.names {
            if path.parent() == Some(dir)
                && let Some(name) = path.file_name()
            {
                let inode = match node {
                    Node::File(inode) => self.inodes.get(inode),
                    Node::Dir => None,
                };
                let is_dir = *node == Node::Dir;
                entries.push(DirEntry {
                    name: name.to_owned(),
                    is_dir,
                    len: inode.map_or(0, Inode::len),
                    modified_ns: inode.map_or(0, Inode::modified_ns),
                });
            }
        }
        Ok(entries)
    }

    /// The names at and below `path`, deepest first.
    pub(super) fn below(&self, path: &Path) -> Vec<PathBuf> {
        self.names
            .keys()
            .rev()
            .filter(|name| name.starts_with(path))
            .cloned()
            .collect()
    }

    /// Bytes in use, in whole blocks of `block_bytes` for each named file.
    pub(super) fn used_bytes(&self, block_bytes: u64) -> u64 {
        let used = |inode: &Inode| inode.used_bytes(block_bytes);
        let used = self.names.values().map(|node| match node {
            Node::File(inode) => self.inodes.get(inode).map_or(0, used),
            Node::Dir => 0,
        });
        used.sum()
    }

    /// Starts a write on the device.
    pub(super) fn begin_write(&mut self, inode: u64, position: u64, data: Vec<u8>) -> u64 {
        let id = self.next_write;
        self.next_write += 1;
        self.under_way.insert(
            id,
            UnderWay {
                inode,
                position,
                data,
            },
        );
        id
    }

    /// Ends a write on the device after its first `len` bytes.
    pub(super) fn finish_write(&mut self, id: u64, len: usize) {
        if let Some(write) = self.under_way.remove(&id)
            && len > 0
        {
            let len = (len - len % SECTOR_BYTES).min(write.data.len());
            self.inode(write.inode)
                .write(write.position, &write.data[..len]);
        }
    }

    /// Length of a write in flight; 0 if it has ended.
    pub(super) fn write_len(&self, id: u64) -> usize {
        self.under_way.get(&id).map_or(0, |write| write.data.len())
    }

    /// Ends the writes in flight: each at its start, at its end, or in between.
    fn end_writes(&mut self, random: &mut Random) {
        while let Some((id, write)) = self.under_way.first_key_value() {
            let (id, len) = (*id, write.data.len());
            let done = match random.below(3) {
                0 => 0,
                1 => len,
                _ => random.index(len + 1),
            };
            self.finish_write(id, done);
        }
    }

    /// The disk after the process's end: everything given to the kernel is there.
    pub(super) fn after_kill(mut self, random: &mut Random) -> Disk {
        self.end_writes(random);
        self
    }

    /// The disk after a power cut: unsynced data and names survive by the seed.
    pub(super) fn after_power_cut(mut self, random: &mut Random) -> Disk {
        self.end_writes(random);
        // With a journal a prefix of the changes of names survives; without one, each directory's own. Both are found
        // in practice.
        let journal = random.chance(500_000);
        let mut names = self.durable_names;
        for change in &self.unsynced {
            if random.chance(500_000) {
                apply(&mut names, change);
            } else if journal {
                break;
            }
        }
        let inodes = self.inodes.into_iter().filter_map(|(number, inode)| {
            let named = names.values().any(|node| *node == Node::File(number));
            named.then(|| (number, inode.after_power_cut(random)))
        });
        Disk {
            inodes: inodes.collect(),
            durable_names: names.clone(),
            names,
            unsynced: Vec::new(),
            next_inode: self.next_inode,
            under_way: BTreeMap::new(),
            next_write: self.next_write,
        }
    }
}
