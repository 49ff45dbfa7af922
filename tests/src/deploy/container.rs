//! A DaemonSet's container, as a runtime would set it up, and a way to run a program under the same restrictions: its own root
//! file system, read-only, with the mounts that it names and no others; its capabilities and no others.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// Run by `sh -c` with mounts of its own: the root file system that is to be, the mounts (each a source, a target and
/// `ro` or `rw`) up to `--`, what restricts the program, and the program itself.
const SANDBOX: &str = include_str!("sandbox.sh");

/// What a runtime needs to know of a container.
#[derive(Clone, Debug)]
pub struct Container {
    /// Its arguments; variables are not expanded.
    pub args: Vec<String>,
    /// The capabilities that it has, as `setpriv` writes them: `net_admin`.
    pub capabilities: Vec<String>,
    /// Whether programs may gain more than that.
    pub may_gain_privileges: bool,
    /// What of the host is mounted.
    pub mounts: Vec<Mount>,
}

/// A folder of the host in the container.
#[derive(Clone, Debug)]
pub struct Mount {
    /// The name of its volume.
    pub name: String,
    /// On the host.
    pub host_path: PathBuf,
    /// In the container.
    pub path: PathBuf,
    /// Whether it cannot be written.
    pub is_read_only: bool,
}

impl Container {
    /// The only container of a DaemonSet.
    ///
    /// # Errors
    /// When there are more, or a volume is no folder of the host.
    pub fn of(daemonset: &Value) -> Result<Container> {
        let pod = &daemonset["spec"]["template"]["spec"];
        let containers = pod["containers"].as_array().context("no containers")?;
        ensure!(containers.len() == 1 && pod["initContainers"].is_null(), "more than one container");
        let container = &containers[0];
        let context = &container["securityContext"];
        ensure!(context["capabilities"]["drop"] == serde_json::json!(["ALL"]), "capabilities are not dropped first");
        ensure!(context["readOnlyRootFilesystem"] == true && context["runAsUser"] == 0, "another root");
        Ok(Container {
            args: words(&container["args"]),
            capabilities: words(&context["capabilities"]["add"]).iter().map(|name| name.to_lowercase()).collect(),
            may_gain_privileges: context["allowPrivilegeEscalation"] != false,
            mounts: mounts(pod, container)?,
        })
    }

    /// The same with this variable in its arguments.
    #[must_use]
    pub fn with_variable(mut self, name: &str, value: &str) -> Container {
        let written = format!("$({name})");
        self.args.iter_mut().for_each(|argument| *argument = argument.replace(&written, value));
        self
    }

    /// The same with one more argument.
    #[must_use]
    pub fn with_argument(mut self, argument: &str) -> Container {
        self.args.push(argument.into());
        self
    }

    /// The same with another folder of the host for a volume, as where this machine has it elsewhere.
    #[must_use]
    pub fn with_host_path(mut self, volume: &str, path: &Path) -> Container {
        self.mounts.iter_mut().filter(|mount| mount.name == volume).for_each(|mount| mount.host_path = path.into());
        self
    }

    /// The same with one more folder of the host.
    #[must_use]
    pub fn with_mount(mut self, host_path: &Path, path: &str) -> Container {
        let name = path.replace('/', "-");
        self.mounts.push(Mount { name, host_path: host_path.into(), path: path.into(), is_read_only: true });
        self
    }

    /// The same without a volume.
    #[must_use]
    pub fn without(mut self, volume: &str) -> Container {
        self.mounts.retain(|mount| mount.name != volume);
        self
    }

    /// The same without a capability.
    #[must_use]
    pub fn without_capability(mut self, capability: &str) -> Container {
        self.capabilities.retain(|name| name != capability);
        self
    }

    /// The words that run a program, which is to follow with its arguments, as this container.
    #[must_use]
    pub fn runner(&self) -> Vec<String> {
        let mut words: Vec<String> = ["unshare", "--mount", "sh", "-c", SANDBOX, "sh"].map(String::from).into();
        for mount in &self.mounts {
            let (from, to) = (mount.host_path.display().to_string(), mount.path.display().to_string());
            words.extend([from, to, if mount.is_read_only { "ro" } else { "rw" }.into()]);
        }
        let set = self.capabilities.iter().fold("-all".to_owned(), |set, name| format!("{set},+{name}"));
        words.extend(["--".into(), "setpriv".into(), format!("--bounding-set={set}"), "--inh-caps=-all".into()]);
        words.extend((!self.may_gain_privileges).then(|| "--no-new-privs".to_owned()));
        words
    }
}

fn mounts(pod: &Value, container: &Value) -> Result<Vec<Mount>> {
    let volumes = pod["volumes"].as_array().context("no volumes")?;
    let mounts = container["volumeMounts"].as_array().context("no mounts")?;
    let one = |mount: &Value| {
        let name = mount["name"].as_str().context("a mount without a name")?;
        let volume = volumes.iter().find(|volume| volume["name"] == name).context("a mount without a volume")?;
        Ok(Mount {
            name: name.into(),
            host_path: volume["hostPath"]["path"].as_str().context("a volume that is no folder of the host")?.into(),
            path: mount["mountPath"].as_str().context("a mount without a path")?.into(),
            is_read_only: mount["readOnly"] == true,
        })
    };
    mounts.iter().map(one).collect()
}

fn words(list: &Value) -> Vec<String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(String::from).collect()
}
