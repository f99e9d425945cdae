//! A small file system that can be filled, for tests of a full disk. Needs the right to mount.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// A tmpfs of a given size, unmounted on drop.
#[derive(Debug)]
pub struct Tmpfs(PathBuf);

impl Tmpfs {
    /// Mounts `megabytes` at `path`; says why it cannot.
    pub fn mount(path: &Path, megabytes: u32) -> Result<Self, String> {
        run("mount", &["-t", "tmpfs", "-o", &format!("size={megabytes}m"), "gracchus-test"], path)?;
        Ok(Self(path.to_owned()))
    }

    /// Changes its size.
    ///
    /// # Panics
    /// When the system refuses.
    pub fn resize(&self, megabytes: u32) {
        run("mount", &["-o", &format!("remount,size={megabytes}m")], &self.0)
            .expect("what is mounted can be resized");
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = run("umount", &["--lazy"], &self.0);
    }
}

fn run(program: &str, arguments: &[&str], path: &Path) -> Result<(), String> {
    let output =
        Command::new(program).args(arguments).arg(path).output().map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(())
    } else {
        Err(String::from_utf8_lossy(&output.stderr).trim().to_owned())
    }
}
