//! A disk whose power can be cut: an ext4 in a file, mounted through a loop device.
//!
//! The cut is ext4's own (`EXT4_IOC_SHUTDOWN` without a flush of the journal): from then on nothing is written any more, and
//! what was not synced is gone when the file system is mounted again. What the kernel has handed to the device counts as
//! written, so a missing barrier between the two is not noticed here; that would need a device-mapper target.

mod raw;

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

/// Bytes of the file.
const SIZE: u64 = 256 << 20;

/// A mounted file system that can lose power.
#[derive(Debug)]
pub struct Disk {
    device: String,
    mounted: PathBuf,
    _folder: TempDir,
}

impl Disk {
    /// Makes and mounts one.
    ///
    /// # Errors
    /// Why this machine does not allow it: not root, no loop device, no ext4, or no such call.
    pub fn mount() -> Result<Self, String> {
        // What is below the device keeps its power, so it may be memory, which is fast.
        let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
        let folder = folder.map_err(|error| error.to_string())?;
        let (image, mounted) = (folder.path().join("image"), folder.path().join("mounted"));
        let made = File::create(&image).and_then(|image| image.set_len(SIZE));
        made.and_then(|()| fs::create_dir(&mounted)).map_err(|error| error.to_string())?;
        let path = image.display().to_string();
        run("mkfs.ext4", &["-q", "-F", &path])?;
        let device = run("losetup", &["--find", "--show", &path])?.trim().to_owned();
        let mut disk = Self { device, mounted, _folder: folder };
        disk.attach()?;
        disk.prove()?;
        Ok(disk)
    }

    /// Where it is mounted.
    pub fn folder(&self) -> &Path {
        &self.mounted
    }

    /// Cuts the power: from now on nothing reaches the disk.
    pub fn cut(&self) -> io::Result<()> {
        raw::shut_down(&File::open(&self.mounted)?)
    }

    /// Has everything written.
    pub fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(File::open(&self.mounted)?)?)
    }

    /// Gives it power again. Whoever used it must have ended.
    pub fn recover(&mut self) -> Result<(), String> {
        self.detach()?;
        self.attach()
    }

    /// Whether the structures of the file system itself are whole.
    pub fn check(&mut self) -> Result<(), String> {
        self.detach()?;
        run("e2fsck", &["-f", "-n", &self.device])?;
        self.attach()
    }

    fn attach(&mut self) -> Result<(), String> {
        run("mount", &["-t", "ext4", &self.device, &self.mounted.display().to_string()]).map(drop)
    }

    fn detach(&self) -> Result<(), String> {
        run("umount", &[&self.mounted.display().to_string()]).map(drop)
    }

    /// A cut must lose what was not synced and keep what was, or nothing that is found with this disk means anything.
    fn prove(&mut self) -> Result<(), String> {
        let (kept, lost) = (self.mounted.join("kept"), self.mounted.join("lost"));
        let write = || {
            fs::write(&kept, "synced")?;
            File::open(&kept)?.sync_all()?;
            fs::write(&lost, "not synced")?;
            self.cut()
        };
        write().map_err(|error| format!("its power can not be cut: {error}"))?;
        self.recover()?;
        match (fs::read(&kept).as_deref().ok(), fs::read(&lost).ok()) {
            (Some(b"synced"), None) => fs::remove_file(&kept).map_err(|error| error.to_string()),
            (kept, lost) => {
                Err(format!("a cut keeps {lost:?}, which was not synced, and {kept:?}, which was"))
            }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // It may not be mounted; and where somebody still uses it, it goes when that one does.
        let _ = run("umount", &["--lazy", &self.mounted.display().to_string()]);
        let _ = run("losetup", &["--detach", &self.device]);
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("`{program}` can not be run: {error}"))?;
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => {
            let told = [output.stdout, output.stderr].concat();
            Err(format!("`{program}` failed: {}", String::from_utf8_lossy(&told).trim()))
        }
    }
}
