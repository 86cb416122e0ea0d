//! Standard streams that whoever gave them to us left non-blocking.
//!
//! `O_NONBLOCK` belongs to the open file, which a terminal, a shell and an ssh session may share: it is theirs to change,
//! and ours to wait.

use std::{
    io::{self, Read, Write},
    os::fd::{AsFd, BorrowedFd},
};

use rustix::event::{PollFd, PollFlags, poll};

/// Waits wherever the stream would have it come again: what it gives and takes is as if it were blocking.
pub(super) struct Patient<T>(pub(super) T);

impl<T: Read + AsFd> Read for Patient<T> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    wait(self.0.as_fd(), PollFlags::IN)?
                }
                other => return other,
            }
        }
    }
}

impl<T: Write + AsFd> Write for Patient<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    wait(self.0.as_fd(), PollFlags::OUT)?
                }
                other => return other,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        loop {
            match self.0.flush() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    wait(self.0.as_fd(), PollFlags::OUT)?
                }
                other => return other,
            }
        }
    }
}

/// Returns when there is something, or nothing will come any more. A signal interrupts it, which is an error that
/// readers and writers begin again after.
fn wait(stream: BorrowedFd<'_>, what: PollFlags) -> io::Result<()> {
    poll(&mut [PollFd::from_borrowed_fd(stream, what)], None)?;
    Ok(())
}
