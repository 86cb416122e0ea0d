//! How compute threads for others give way: to every other thread of the machine, in CPU and in IO.
//!
//! Deliberately absent: the cgroup, which the service's unit sets. The calls go straight to the kernel: the scheduling ones of
//! musl are stubs, and glibc's `nice` is the process's by the standard and the thread's only on Linux.

use std::{fs, process};

/// `SCHED_IDLE` of sched(7): runs when nothing else wants to.
const SCHED_IDLE: libc::c_long = 5;
/// `IOPRIO_WHO_PROCESS` of ioprio_set(2); 0 is the calling thread.
const IOPRIO_WHO_PROCESS: libc::c_long = 1;
/// `IOPRIO_CLASS_IDLE`, in the upper three bits of 16.
const IOPRIO_IDLE: libc::c_long = 3 << 13;
/// `PRIO_PROCESS` of setpriority(2), a `c_long` for every machine; 0 is the calling thread.
const PRIO_PROCESS: libc::c_long = 0;
/// The least that setpriority(2) knows.
const NICEST: libc::c_long = 19;

/// The calling thread gives way from now on. What the system refuses is logged and given: the rest holds.
pub(super) fn give_way() -> Vec<&'static str> {
    // SAFETY: the calls take numbers alone.
    #[expect(unsafe_code, reason = "system calls")]
    let (niced, ioprio) = unsafe {
        (
            libc::syscall(libc::SYS_setpriority, PRIO_PROCESS, 0, NICEST),
            libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, IOPRIO_IDLE),
        )
    };
    // Last: from here on nobody knows when this thread runs again.
    // SAFETY: the call reads one int, the priority, which `SCHED_IDLE` wants to be 0.
    #[expect(unsafe_code, reason = "a system call")]
    let scheduled = unsafe {
        let priority: libc::c_int = 0;
        libc::syscall(libc::SYS_sched_setscheduler, 0, SCHED_IDLE, &raw const priority)
    };
    let results = [("SCHED_IDLE", scheduled), ("nice 19", niced), ("the idle IO class", ioprio)];
    let refused: Vec<&str> =
        results.into_iter().filter(|(_, result)| *result < 0).map(|(what, _)| what).collect();
    if !refused.is_empty() {
        tracing::debug!(?refused, "a compute thread can not give way so");
    }
    refused
}

/// The whole session of this process gives way to every other: without it two sessions share the CPU in halves, whatever
/// the threads of one say (autogroup, sched(7)). Only where this process leads its session, as a service does: a terminal's
/// session is its user's too.
pub fn session_gives_way() {
    // Not by rustix, which takes it for granted that there is one: it is 0 where whoever leads the session stands outside of
    // this process' namespace, as in a container.
    // SAFETY: the call takes and gives a number.
    #[expect(unsafe_code, reason = "a system call")]
    let leader = unsafe { libc::getsid(0) };
    if u32::try_from(leader) != Ok(process::id()) {
        return;
    }
    if let Err(error) = fs::write("/proc/self/autogroup", "19") {
        tracing::debug!(%error, "the session can not give way");
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_thread_gives_way_and_the_others_do_not() {
        let policy = |stat: &str| {
            let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
            // Fields 19 and 41 of proc(5), of which the first two are cut off.
            (fields[16].to_owned(), fields[38].to_owned())
        };
        let of_this_thread = move || policy(&fs::read_to_string("/proc/thread-self/stat").unwrap());
        let before = of_this_thread();
        let given = thread::spawn(move || {
            give_way();
            of_this_thread()
        });
        assert_eq!(given.join().unwrap(), ("19".to_owned(), "5".to_owned()));
        assert_eq!(of_this_thread(), before);
    }
}
