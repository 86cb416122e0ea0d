//! The node as a service: what its manager hears of it, and what systemd makes of its units.

use std::{
    fs,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    path::Path,
    process::Command,
    time::Duration,
};

use crate::edge::{Edge, Running, ran};

/// Longest wait for a line of a node that lives.
const PATIENCE: Duration = Duration::from_secs(60);

/// The manager's end of the socket.
struct Manager(UnixDatagram);

impl Manager {
    fn at(address: &SocketAddr) -> Self {
        let socket = UnixDatagram::bind_addr(address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    /// The next datagram, a line an assignment.
    #[track_caller]
    fn hears(&self) -> Vec<String> {
        let mut bytes = [0; 4096];
        let length = self.0.recv(&mut bytes).unwrap();
        str::from_utf8(&bytes[..length]).unwrap().lines().map(str::to_owned).collect()
    }
}

fn start(edge: &Edge, socket: &str, more: &[(&str, &str)]) -> Running {
    let mut command = edge.command();
    command.args(["run", "--no-mdns"]).env("NOTIFY_SOCKET", socket).envs(more.iter().copied());
    edge.spawn(command, "")
}

#[test]
fn a_manager_hears_that_the_node_is_ready_lives_and_ends() {
    let edge = Edge::new();
    let path = edge.path("notify");
    let manager = Manager::at(&SocketAddr::from_pathname(&path).unwrap());
    let running = start(&edge, path.to_str().unwrap(), &[("WATCHDOG_USEC", "200000")]);
    // On a busy machine its parts live for a while before it is ready.
    let ready = loop {
        let heard = manager.hears();
        if heard[0] != "WATCHDOG=1" {
            break heard;
        }
    };
    assert_eq!(ready[0], "READY=1");
    assert!(ready[1].starts_with("STATUS=node ") && ready[1].contains("listens on UDP port"), "{ready:?}");
    // Ready means that it answers.
    edge.run(["status"]).expect(0, &[]);
    for _ in 0..3 {
        let beat = manager.hears();
        assert_eq!(beat[0], "WATCHDOG=1");
        assert!(beat[1].contains("0 peers connected"), "{beat:?}");
    }
    running.signal("TERM");
    let ends = loop {
        let heard = manager.hears();
        if heard[0] != "WATCHDOG=1" {
            break heard;
        }
    };
    assert_eq!(ends, ["STOPPING=1", "STATUS=giving back what is not begun, delivering what is done"]);
    running.ended_well();
}

#[test]
fn a_manager_may_listen_under_an_abstract_name_and_one_that_is_gone_is_no_obstacle() {
    let edge = Edge::new();
    let name = format!("edge-test-{}", std::process::id());
    let manager = Manager::at(&SocketAddr::from_abstract_name(&name).unwrap());
    let running = start(&edge, &format!("@{name}"), &[]);
    assert_eq!(manager.hears()[0], "READY=1");
    running.signal("TERM");
    assert_eq!(manager.hears()[0], "STOPPING=1", "nobody asked for signs of life");
    running.ended_well();
    drop(manager);
    let running = start(&edge, &format!("@{name}"), &[]);
    edge.wait_for("", "cannot reach the service manager at NOTIFY_SOCKET=@edge-test-");
    edge.wait_for("", "listens on UDP port");
    running.signal("TERM");
    running.ended_well();
}

/// The folder of the units of this checkout, with the program that was built where it will be installed.
fn units(edge: &Edge) -> std::path::PathBuf {
    let folder = edge.path("units");
    for (from, to) in [("edge.service", "system"), ("edge-user.service", "user")] {
        let to = folder.join(to);
        fs::create_dir_all(&to).unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("systemd");
        let unit = fs::read_to_string(source.join(from)).unwrap();
        let program = env!("CARGO_BIN_EXE_edge");
        assert!(unit.contains("\nExecStart=/usr/bin/edge run\n"));
        fs::write(to.join("edge.service"), unit.replace("/usr/bin/edge", program)).unwrap();
        fs::copy(source.join("edge.slice"), to.join("edge.slice")).unwrap();
    }
    folder
}

fn systemd_analyze(edge: &Edge, arguments: &[&str]) -> crate::edge::Ran {
    let mut command = Command::new("systemd-analyze");
    // A user's manager wants a folder of its own; this one is never started.
    command.args(arguments).env("XDG_RUNTIME_DIR", edge.path(""));
    ran(command)
}

#[test]
fn systemd_finds_nothing_wrong_with_the_units_and_little_exposed() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        return println!("skipped: there is no systemd-analyze here");
    }
    let edge = Edge::new();
    let folder = units(&edge);
    for (whose, unit) in [("--system", "system/edge.service"), ("--user", "user/edge.service")] {
        let unit = folder.join(unit);
        let found = systemd_analyze(&edge, &["verify", "--man=no", whose, unit.to_str().unwrap()]);
        let found = found.expect(0, &[]);
        // It goes on over what it does not know, and says so.
        let said: Vec<&str> = found.stderr.lines().filter(|line| line.contains("edge.s")).collect();
        assert!(said.is_empty(), "{said:?}");
    }
    let unit = folder.join("system/edge.service");
    let arguments = ["security", "--offline=true", "--threshold=20", unit.to_str().unwrap()];
    let exposed = systemd_analyze(&edge, &arguments).expect(0, &[]).stdout;
    println!("{}", exposed.lines().last().unwrap_or_default());
}

#[test]
fn the_units_say_where_the_program_looks() {
    let unit = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/edge.service")).unwrap();
    let edge = Edge::new();
    let line = unit.lines().find_map(|line| line.strip_prefix("Environment=")).unwrap();
    let mut command = edge.command();
    command.env_remove("EDGE_DATA_DIR").args(["config", "show"]);
    command.envs(line.split(' ').map(|pair| pair.split_once('=').unwrap()));
    let shown = ran(command).expect(0, &[]);
    assert!(!shown.stderr.contains("no setting"), "{}", shown.stderr);
    for line in
        ["data_dir = /var/lib/edge ", "control.socket = /run/edge/edge.sock ", "control.shared = true "]
    {
        assert!(shown.stdout.contains(line), "no {line:?} in {}", shown.stdout);
    }
}

#[test]
fn what_a_package_holds_is_made_by_the_program() {
    let edge = Edge::new();
    let pages = edge.path("man");
    edge.run(["man", pages.to_str().unwrap()]).expect(0, &["manual pages"]);
    let first = fs::read_to_string(pages.join("edge.1")).unwrap();
    let kept = first.split_once("\n.SH EXAMPLES AND NOTES\n.nf\n").unwrap().1.split_once("\n.fi\n").unwrap();
    assert!(kept.0.contains("Exit codes: 0 all done") && kept.1.contains(".SH VERSION"), "{first}");
    for page in ["edge-run.1", "edge-swarm-join.1", "edge-config.1"] {
        assert!(fs::read_to_string(pages.join(page)).unwrap().contains(".SH SYNOPSIS"), "{page}");
    }
    assert!(!pages.join("edge-man.1").exists(), "it is for packagers");
    let example = edge.run(["config", "example"]).expect(0, &[]).stdout;
    fs::write(edge.path("config.toml"), example).unwrap();
    edge.run(["config", "check", "--config", "config.toml"]).expect(0, &["the settings are right"]);
}
