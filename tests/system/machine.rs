//! A machine of its own as far as files, network and name go: namespaces with a scratch
//! directory in the place of /var/log.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{self, Daemon, wait_until};
use crate::done;

/// One such machine; gone when dropped.
pub struct Machine {
    /// What it sees as /var/log, seen from outside.
    pub var_log: PathBuf,
    name: String,
    holder: Daemon,
}

impl Machine {
    /// Starts one called `name`, with its files below `home`.
    pub fn start(home: &Path, name: &str) -> Self {
        let var_log = home.join(name).join("log");
        fs::create_dir_all(&var_log).expect("a directory");
        let mut command = Command::new("unshare");
        command.args(["--mount", "--net", "--uts", "--propagation", "private"]);
        command.args(["sleep", "infinity"]);
        let mut holder = Daemon::spawn(command, &home.join(name).join("holder.out"));
        let namespaces = format!("/proc/{}/ns", holder.pid());
        wait_until("the namespaces exist", || {
            assert!(holder.ended().is_none(), "{}", holder.output());
            let own = |kind| {
                let theirs = fs::read_link(Path::new(&namespaces).join(kind)).ok();
                theirs.is_some() && theirs != fs::read_link(format!("/proc/self/ns/{kind}")).ok()
            };
            own("mnt") && own("net") && own("uts")
        });
        let machine = Self {
            var_log,
            name: name.to_owned(),
            holder,
        };
        machine.run(
            "mount",
            &[
                b"--bind",
                machine.var_log.as_os_str().as_bytes(),
                b"/var/log",
            ],
        );
        machine.run("hostname", &[name.as_bytes()]);
        machine.run("ip", &[b"link", b"set", b"lo", b"up"]);
        machine
    }

    /// Its host name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A command that will run on it.
    pub fn command(&self, program: &Path) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--net", "--uts", "--target"]);
        command
            .arg(self.holder.pid().to_string())
            .arg("--")
            .arg(program);
        command
    }

    /// Runs a command on it to its successful end.
    pub fn run(&self, program: &str, args: &[&[u8]]) {
        let args = args.iter().map(|arg| std::ffi::OsStr::from_bytes(arg));
        done(self.command(Path::new(program)).args(args));
    }

    /// Starts a daemon of ours on it with a configuration file.
    pub fn shaftlog(&self, subcommand: &str, flags: &str, config: &Path) -> Daemon {
        let mut command = self.command(common::program());
        command.arg(subcommand).arg(flags).arg(config);
        let output = format!("{}.{subcommand}.out", self.name);
        Daemon::spawn(command, &self.var_log.with_file_name(output))
    }

    /// Replaces a file of /etc for this machine alone.
    pub fn etc(&self, name: &str, text: &str) {
        let file = self.var_log.with_file_name(name);
        fs::write(&file, text).expect("a file");
        let target = format!("/etc/{name}");
        self.run(
            "mount",
            &[b"--bind", file.as_os_str().as_bytes(), target.as_bytes()],
        );
    }

    /// Lays a cable to `other`: addresses 10.77.0.1 and 10.77.0.2.
    pub fn connect(&self, other: &Self) {
        let peer = other.holder.pid().to_string();
        let link: [&[u8]; 10] = [
            b"link",
            b"add",
            b"cable",
            b"type",
            b"veth",
            b"peer",
            b"name",
            b"cable",
            b"netns",
            peer.as_bytes(),
        ];
        self.run("ip", &link);
        for (machine, address) in [(self, "10.77.0.1/24"), (other, "10.77.0.2/24")] {
            machine.run(
                "ip",
                &[b"address", b"add", address.as_bytes(), b"dev", b"cable"],
            );
            machine.run("ip", &[b"link", b"set", b"cable", b"up"]);
        }
    }
}
