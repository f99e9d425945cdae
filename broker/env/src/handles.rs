//! Running out of file handles is the process's trouble, not the disk's.

use std::io;

use rustix::io::Errno;

/// Whether `error` says that this process, or its machine, has no file handle left. Only what opens something says so
/// ([`crate::Disk::open`], [`list`](crate::Disk::list) and [`lock`](crate::Disk::lock), and what makes a socket), and
/// then nothing has been done: it can be tried again. A submission never fails with it.
pub fn is_out_of_handles(error: &io::Error) -> bool {
    [Errno::MFILE, Errno::NFILE].iter().any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}
