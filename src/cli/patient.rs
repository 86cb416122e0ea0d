//! Standard streams that whoever gave them to us left non-blocking.
//!
//! `O_NONBLOCK` belongs to the open file, which a terminal, a shell and an ssh session may share: it is theirs to change,
//! and ours to wait.

use std::{
    io::{self, Read, Write},
    os::fd::AsFd,
};

use rustix::event::{PollFd, PollFlags, poll};

/// Waits wherever the stream would have it come again: what it gives and takes is as if it were blocking.
pub(super) struct Patient<T>(pub(super) T);

impl<T: AsFd> Patient<T> {
    /// What `attempt` gives when it no longer says to come again. A signal that interrupts the wait is an error, after which
    /// readers and writers begin anew.
    fn wait<R>(
        &mut self,
        what: PollFlags,
        mut attempt: impl FnMut(&mut T) -> io::Result<R>,
    ) -> io::Result<R> {
        loop {
            match attempt(&mut self.0) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // Also where nothing will come any more: the next attempt says so.
                    poll(&mut [PollFd::new(&self.0, what)], None)?;
                }
                other => return other,
            }
        }
    }
}

impl<T: Read + AsFd> Read for Patient<T> {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.wait(PollFlags::IN, |stream| stream.read(bytes))
    }
}

impl<T: Write + AsFd> Write for Patient<T> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.wait(PollFlags::OUT, |stream| stream.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        self.wait(PollFlags::OUT, T::flush)
    }
}
