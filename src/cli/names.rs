//! Keeps a static program from loading the system's libraries to look up names.
//!
//! glibc asks /etc/nsswitch.conf who knows the names of hosts and users, and loads a library for each, out of a static
//! program too. Those belong to the libc of that system: where it is another than this program's, they end the process. Debian
//! 13 with libnss-mdns, as Raspberry Pi OS has it, does so at the first name that is not in /etc/hosts. What is built into
//! libc, /etc/hosts, DNS and /etc/passwd, needs no library. Names that end in `.local` are then nobody's.

#[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
#[expect(unsafe_code, reason = "a function of glibc that no crate declares")]
pub(super) fn stay_inside() {
    use std::ffi::{CStr, c_char, c_int};

    unsafe extern "C" {
        /// `<nss.h>`: says in the place of /etc/nsswitch.conf who is asked.
        fn __nss_configure_lookup(database: *const c_char, services: *const c_char) -> c_int;
    }

    const LOOKUPS: [(&CStr, &CStr); 3] =
        [(c"hosts", c"files dns"), (c"passwd", c"files"), (c"group", c"files")];
    for (database, services) in LOOKUPS {
        // SAFETY: both are strings that end in zero, and no other thread runs yet. It fails only without memory.
        unsafe { __nss_configure_lookup(database.as_ptr(), services.as_ptr()) };
    }
}

/// A program that shares the system's libc may load what belongs to it.
#[cfg(not(all(target_env = "gnu", target_feature = "crt-static")))]
pub(super) fn stay_inside() {}
