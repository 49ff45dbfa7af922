//! A process as a container runtime would start it: a root file system of its own, read-only, with some folders of the host and no
//! others; some capabilities and no others; no new privileges. No engine takes part.

use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{chdir, chroot};

use super::namespace::Namespace;

/// The number after the last capability of any kernel (include/uapi/linux/capability.h has 41).
const CAPABILITIES_END: u8 = 64;

/// The names of those that a pod may be given, with their numbers.
const NUMBERS: [(&str, u8); 5] = [("NET_ADMIN", 12), ("NET_RAW", 13), ("SYS_ADMIN", 21), ("PERFMON", 38), ("BPF", 39)];

/// BPF instructions of a seccomp filter: load the number of the system call; if it is bpf(2), EPERM; else allow.
const WITHOUT_BPF: [libc::sock_filter; 4] = [
    filter(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
    filter(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_bpf as u32),
    filter(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
    filter(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
];

/// What a process gets of the machine.
#[derive(Clone, Debug)]
pub struct Sandbox {
    root: PathBuf,
    capabilities: Vec<u8>,
    mounts: Vec<Mount>,
    may_call_bpf: bool,
}

/// A file or folder of the host, and where it is inside.
#[derive(Clone, Debug)]
struct Mount {
    from: CString,
    to: CString,
    is_read_only: bool,
    with_what_is_below: bool,
}

impl Sandbox {
    /// One with this root, these capabilities, such as `NET_ADMIN`, and what a runtime gives to everybody: /proc and /sys.
    pub fn new(root: &Path, capabilities: &[impl AsRef<str>]) -> Result<Sandbox> {
        let numbers = capabilities.iter().map(|name| number(name.as_ref())).collect::<Result<Vec<u8>>>()?;
        let sandbox = Sandbox { root: root.to_owned(), capabilities: numbers, mounts: Vec::new(), may_call_bpf: true };
        let sandbox = sandbox.with("/proc".as_ref(), "/proc", false)?;
        let mut sandbox = sandbox.with("/sys".as_ref(), "/sys", true)?;
        // Whatever is mounted below /sys, such as bpffs, has to be asked for.
        sandbox.mounts.iter_mut().for_each(|mount| mount.with_what_is_below = false);
        Ok(sandbox)
    }

    /// The same with a file or folder of the host.
    pub fn with(mut self, from: &Path, to: &str, is_read_only: bool) -> Result<Sandbox> {
        let inside = self.root.join(to.trim_start_matches('/'));
        // A runtime makes the place, too, before the root becomes read-only. Below /sys and /proc it is there.
        if !to.starts_with("/sys/") && !to.starts_with("/proc/") {
            let folder = if from.is_dir() { Some(&*inside) } else { inside.parent() };
            fs::create_dir_all(folder.context("a mount at /")?).with_context(|| format!("making {to}"))?;
            if !from.is_dir() && !inside.exists() {
                fs::write(&inside, "").with_context(|| format!("making {to}"))?;
            }
        }
        self.mounts.push(Mount { from: c(from)?, to: c(&inside)?, is_read_only, with_what_is_below: true });
        Ok(self)
    }

    /// The same in a runtime whose seccomp profile does not know that CAP_BPF is for bpf(2).
    #[must_use]
    pub fn without_bpf_calls(mut self) -> Sandbox {
        self.may_call_bpf = false;
        self
    }

    /// Its capabilities as /proc/PID/status writes them.
    #[must_use]
    pub fn capabilities(&self) -> String {
        format!("{:016x}", self.capabilities.iter().fold(0_u64, |mask, number| mask | 1 << number))
    }

    /// A command in a network namespace whose program, named by its path inside, runs like that.
    pub fn command(&self, namespace: &Namespace, program: &str) -> Result<Command> {
        ensure!(program.starts_with('/'), "{program} is no path inside");
        let (sandbox, root) = (self.clone(), c(&self.root)?);
        let mut command = namespace.command(program);
        command.env_clear().env("PATH", "/");
        // SAFETY: between fork and exec the closure makes system calls with strings that were made before; it neither
        // allocates nor takes a lock.
        unsafe {
            command.pre_exec(move || Ok(sandbox.enter(&root)?));
        }
        Ok(command)
    }

    fn enter(&self, root: &CStr) -> nix::Result<()> {
        unshare(CloneFlags::CLONE_NEWNS)?;
        let nothing = None::<&CStr>;
        mount(nothing, c"/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
        mount(Some(root), root, nothing, MsFlags::MS_BIND, nothing)?;
        let read_only = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
        for one in &self.mounts {
            let all = if one.with_what_is_below { MsFlags::MS_REC } else { MsFlags::empty() };
            mount(Some(&*one.from), &*one.to, nothing, MsFlags::MS_BIND | all, nothing)?;
            if one.is_read_only {
                mount(nothing, &*one.to, nothing, read_only, nothing)?;
            }
        }
        mount(nothing, root, nothing, read_only, nothing)?;
        // The bind mount at this path is on top of the folder: a path that was opened before would lead below it.
        chdir(root)?;
        chroot(c".")?;
        self.restrict()
    }

    /// What root may do after execve(2) is what the bounding set has.
    fn restrict(&self) -> nix::Result<()> {
        for capability in (0..CAPABILITIES_END).filter(|number| !self.capabilities.contains(number)) {
            match prctl(libc::PR_CAPBSET_DROP, u64::from(capability), 0) {
                // The kernel has no such capability.
                Ok(()) | Err(Errno::EINVAL) => {}
                refused => return refused,
            }
        }
        prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0)?;
        if self.may_call_bpf {
            return Ok(());
        }
        let mut instructions = WITHOUT_BPF;
        let program = libc::sock_fprog { len: instructions.len() as u16, filter: instructions.as_mut_ptr() };
        prctl(libc::PR_SET_SECCOMP, u64::from(libc::SECCOMP_MODE_FILTER), &raw const program as u64)
    }
}

fn prctl(option: i32, second: u64, third: u64) -> nix::Result<()> {
    // SAFETY: the kernel reads numbers, and of PR_SET_SECCOMP a program that outlives the call.
    Errno::result(unsafe { libc::prctl(option, second, third, 0, 0) }).map(drop)
}

const fn filter(code: u32, jump_if: u8, jump_else: u8, value: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: jump_if, jf: jump_else, k: value }
}

fn number(name: &str) -> Result<u8> {
    let found = NUMBERS.iter().find(|(known, _)| *known == name.trim_start_matches("CAP_"));
    Ok(found.with_context(|| format!("the lab does not know the capability {name}"))?.1)
}

fn c(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(io::Error::from)
        .with_context(|| format!("using {}", path.display()))
}
