//! A small disk of a test's own: an ext4 image, mounted for this test's processes only, that can be filled and can fail.
//! Needs root and loop devices.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{Scratch, skip};

/// The disk's size, bytes.
pub const DISK_BYTES: u64 = 160 << 20;

/// A mounted image. A process holds its mount namespace.
#[derive(Debug)]
pub struct Disk {
    holder: Child,
    mounted: PathBuf,
}

impl Disk {
    /// A disk for a test; where none can be mounted the test is reported as skipped.
    pub fn or_skip(scratch: &Scratch) -> Option<Self> {
        let disk = Self::mount(scratch);
        let say = |reason| skip(format_args!("no small disk of its own: {reason}"));
        disk.map_err(say).ok()
    }

    /// Makes and mounts the image, or returns why that is impossible here.
    fn mount(scratch: &Scratch) -> Result<Self, String> {
        let (image, mounted) = (scratch.join("image"), scratch.join("disk"));
        let file = File::create(&image).and_then(|file| file.set_len(DISK_BYTES));
        file.and_then(|()| fs::create_dir(&mounted))
            .map_err(|error| error.to_string())?;
        let made = Command::new("mkfs.ext4")
            .args(["-q", "-m", "0"])
            .arg(&image)
            .output();
        match made {
            Ok(output) if output.status.success() => {}
            Ok(output) => return Err(String::from_utf8_lossy(&output.stderr).into_owned()),
            Err(error) => return Err(format!("mkfs.ext4 (package e2fsprogs): {error}")),
        }
        // The script reports that it is ready, then waits for the end of its input.
        let script = "mount -o loop \"$0\" \"$1\" && echo mounted && exec cat";
        let mut holder = Command::new("unshare")
            .args(["--mount", "sh", "-c", script])
            .args([&image, &mounted])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("unshare (package util-linux): {error}"))?;
        let mut line = String::new();
        let output = holder.stdout.take().expect("standard output is piped");
        BufReader::new(output)
            .read_line(&mut line)
            .expect("its first line");
        let disk = Self { holder, mounted };
        if line.trim() != "mounted" {
            return Err("a loop device cannot be mounted (it takes root)".into());
        }
        Ok(disk)
    }

    /// The front of a command that runs in the disk's namespace.
    pub fn wrapper(&self) -> [String; 5] {
        let target = self.holder.id().to_string();
        ["nsenter", "--target", &target, "--mount", "--"].map(str::to_owned)
    }

    /// The mount point, in that namespace.
    pub fn mounted(&self) -> &Path {
        &self.mounted
    }

    /// Lets every access fail from now on, as when the device is gone (`EXT4_IOC_SHUTDOWN`, without flushing).
    pub fn fail(&self) {
        let script = "import fcntl, os, struct, sys\n\
                      fd = os.open(sys.argv[1], os.O_RDONLY)\n\
                      fcntl.ioctl(fd, 0x8004587D, struct.pack('I', 2))";
        self.run(&["python3", "-c", script, &self.mounted.to_string_lossy()]);
    }

    /// Mounts it again after [`Disk::fail`]; no process may have files open there.
    pub fn mount_again(&self) {
        let image = self.mounted.with_file_name("image");
        let (image, mounted) = (image.to_string_lossy(), self.mounted.to_string_lossy());
        self.run(&["umount", &mounted]);
        self.run(&["mount", "-o", "loop", &image, &mounted]);
    }

    fn run(&self, command: &[&str]) {
        let [program, arguments @ ..] = self.wrapper();
        let status = Command::new(program).args(arguments).args(command).status();
        assert!(status.is_ok_and(|status| status.success()), "{command:?}");
    }

    /// A file of the disk by a path of this process.
    fn seen_from_here(&self, name: &str) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.holder.id()));
        let inside = self.mounted.strip_prefix("/").expect("an absolute path");
        root.join(inside).join(name)
    }

    /// Takes all free space.
    pub fn fill(&self) {
        let ballast = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.seen_from_here("ballast"));
        let mut ballast = ballast.expect("a file on the disk");
        for piece in [1 << 20, 4096, 1] {
            let bytes = vec![0xff; piece];
            loop {
                match ballast.write_all(&bytes).and_then(|()| ballast.sync_data()) {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::StorageFull => break,
                    Err(error) => panic!("ballast: {error}"),
                }
            }
        }
    }

    /// Frees the space again.
    pub fn free(&self) {
        fs::remove_file(self.seen_from_here("ballast")).expect("the ballast");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The namespace, and with it the mount, ends with its last process.
        drop(self.holder.stdin.take());
        let _status = self.holder.wait();
    }
}
