//! With `XLB_HELM`, a `helm` program: it makes the same of the chart as the tests do.

use std::env;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use xlb_tests::deploy::{documents, folder, identity};

use crate::chart::{Case, RELEASE, cases, rendered};

#[test]
fn helm_itself_makes_the_same_of_the_chart_where_it_is() -> Result<()> {
    let Some(helm) = env::var_os("XLB_HELM") else {
        println!("not compared with Helm: XLB_HELM names no program");
        return Ok(());
    };
    let file = tempfile::Builder::new().suffix(".yaml").tempfile()?;
    for Case { name, values, .. } in cases() {
        std::fs::write(file.path(), values.to_string())?;
        let mut command = Command::new(&helm);
        command.args(["template", RELEASE.name]).arg(folder().join("helm/xlb"));
        command.args(["--namespace", RELEASE.namespace, "-f"]).arg(file.path());
        let output = command.output().with_context(|| format!("starting {}", helm.display()))?;
        ensure!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
        let sorted = |mut objects: Vec<Value>| {
            objects.sort_by_key(identity);
            objects
        };
        let of_helm = sorted(documents(&String::from_utf8(output.stdout)?)?);
        assert_eq!(of_helm, sorted(rendered(&values)?.objects), "{name}");
    }
    Ok(())
}
