//! The runner of the cases that lie beside the plugins. The format is `README.md` of this crate; a rule that stands there is
//! carried out here and nowhere else.

mod expect;
mod kernel;
mod run;
mod steps;

use crate::versions;
use anyhow::{Context, Result, bail};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

pub use kernel::{is_said_to_be_full as kernel_is_full, lacks as kernel_lacks};
pub use steps::{Action, Expectation, Step, Subject, parse};

/// Whose plugins are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Implementation {
    /// Ours, installed.
    Sandwire,
    /// Debian's.
    Reference,
}

/// The newest version that Debian 12's plugins know.
const REFERENCE_KNOWS: &str = "1.0.0";
/// How many (case, version) pairs run at once: most of their time is waiting for RCU in the kernel.
const AT_ONCE: usize = 4;

/// One folder of a plugin's cases.
#[derive(Debug, Clone)]
pub struct Case {
    /// The plugin's type.
    pub plugin: String,
    /// `<plugin>/<case>`.
    pub name: String,
    folder: PathBuf,
    config: Map<String, Value>,
    env: Vec<(String, String)>,
    steps: Vec<Step>,
    versions: Vec<String>,
    needs_kernel: bool,
}

/// What came of one plugin's cases.
#[derive(Debug, Default)]
pub struct Report {
    /// How many (case, version) pairs ran.
    pub ran: usize,
    /// `<plugin>/<case> at <version>: what differed`.
    pub failures: Vec<String>,
}

impl Report {
    /// Every case passed, and there were some.
    ///
    /// # Errors
    /// With every failing case.
    pub fn check(&self) -> Result<()> {
        if self.ran == 0 {
            bail!("no case ran");
        }
        if !self.failures.is_empty() {
            bail!("{} of {} failed:\n\n{}\n", self.failures.len(), self.ran, self.failures.join("\n\n"));
        }
        Ok(())
    }
}

/// The plugins of the checkout: every folder under `plugins/`.
///
/// # Errors
/// When the folder can't be read.
pub fn plugins() -> Result<Vec<String>> {
    folders(&crate::repository().join("plugins"))
}

fn folders(parent: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(parent).with_context(|| parent.display().to_string())?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            names.push(entry.file_name().to_string_lossy().into_owned());
        }
    }
    names.sort();
    Ok(names)
}

/// All cases of a plugin.
///
/// # Errors
/// When there are none, or one isn't in the format.
pub fn of_plugin(plugin: &str) -> Result<Vec<Case>> {
    of_folder(&crate::repository().join("plugins").join(plugin).join("cases"), plugin)
}

/// All cases of a plugin in a folder.
///
/// # Errors
/// When there are none, or one isn't in the format.
pub fn of_folder(folder: &Path, plugin: &str) -> Result<Vec<Case>> {
    let names = folders(folder)?;
    if names.is_empty() {
        bail!("plugin {plugin:?} has no cases in {}", folder.display());
    }
    names.iter().map(|name| Case::load(&folder.join(name), plugin, name)).collect()
}

impl Case {
    fn load(folder: &Path, plugin: &str, name: &str) -> Result<Self> {
        let name = format!("{plugin}/{name}");
        let read = |file: &str| std::fs::read_to_string(folder.join(file)).ok();
        let config = read("config.json").with_context(|| format!("{name}: config.json"))?;
        let config = serde_json::from_str(&config).with_context(|| format!("{name}: config.json"))?;
        let needs = read("needs");
        let load = |file: &str| -> Result<Vec<Step>> {
            let text = read(file).with_context(|| format!("{name}: {file}"))?;
            parse(&text).with_context(|| format!("{name}: {file}"))
        };
        let mut steps = load("steps")?;
        if let Some(needs) = &needs {
            // Both must be there and in the format on every kernel: no machine runs both.
            let without = load("steps.without")?;
            if kernel::lacks(needs).with_context(|| format!("{name}: needs"))? {
                steps = without;
            }
        }
        let versions = match read("versions") {
            Some(text) => text.split_whitespace().map(str::to_owned).collect(),
            None => versions::ALL.iter().map(|version| (*version).to_owned()).collect(),
        };
        let mut env = Vec::new();
        for line in read("env").unwrap_or_default().lines().filter(|line| !line.trim().is_empty()) {
            let (key, value) =
                line.split_once('=').with_context(|| format!("{name}: env: {line:?} is no KEY=VALUE"))?;
            env.push((key.to_owned(), value.to_owned()));
        }
        let (plugin, folder, needs_kernel) = (plugin.to_owned(), folder.to_owned(), needs.is_some());
        Ok(Self { plugin, name, folder, config, env, steps, versions, needs_kernel })
    }

    /// Whether it has other steps for a kernel that lacks something.
    pub fn needs_kernel(&self) -> bool {
        self.needs_kernel
    }

    /// Whether the reference must pass it too.
    pub fn is_for_reference(&self) -> bool {
        self.folder.join("reference").exists()
    }

    /// The content of `name`, or of what stands in for it at this version.
    fn file(&self, name: &str, version: &str) -> Result<String> {
        let special = match name.rsplit_once('.') {
            Some((stem, extension)) => format!("{stem}@{version}.{extension}"),
            None => format!("{name}@{version}"),
        };
        let special = self.folder.join(special);
        let path = if special.exists() { special } else { self.folder.join(name) };
        std::fs::read_to_string(&path).with_context(|| path.display().to_string())
    }

    fn has(&self, name: &str) -> bool {
        self.folder.join(name).exists()
    }

    fn config(&self, file: Option<&str>, version: &str) -> Result<Map<String, Value>> {
        let mut config = match file {
            Some(name) => serde_json::from_str(&self.file(name, version)?).with_context(|| name.to_owned())?,
            None => self.config.clone(),
        };
        if version != "none" {
            config.insert("cniVersion".into(), version.into());
        }
        Ok(config)
    }
}

/// Run cases, some at once.
///
/// # Errors
/// When the runner itself can't work; failing cases are in the report.
pub fn run(cases: &[Case], implementation: Implementation) -> Result<Report> {
    let only = std::env::var("SANDWIRE_CASES").unwrap_or_default();
    let versions = std::env::var("SANDWIRE_CASES_VERSIONS").unwrap_or_default();
    let wanted = |version: &str| versions.is_empty() || versions.split(',').any(|v| v == version);
    let reference = implementation == Implementation::Reference;
    let full = kernel::is_said_to_be_full();
    let mut todo = Vec::new();
    for case in cases.iter().filter(|case| case.name.contains(&only) && (!reference || case.is_for_reference())) {
        if full && !case.needs_kernel {
            continue;
        }
        let known = |version: &&str| !reference || *version == "none" || *version <= REFERENCE_KNOWS;
        let mut at: Vec<&str> = case.versions.iter().map(String::as_str).filter(known).collect();
        if full {
            // What the kernel does is the same at every version, and each run takes seconds there.
            at = at.into_iter().max().into_iter().collect();
        }
        todo.extend(at.into_iter().filter(|version| wanted(version)).map(|version| (case, version)));
    }
    let (next, results) = (std::sync::Mutex::new(todo.iter()), std::sync::Mutex::new(Report::default()));
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((case, version)) = next.lock().ok().and_then(|mut next| next.next()) {
                    let outcome = run::run(case, version, implementation);
                    let Ok(mut report) = results.lock() else { return };
                    report.ran += 1;
                    if let Err(error) = outcome {
                        report.failures.push(format!("{} at {version}: {error:#}", case.name));
                    }
                }
            });
        }
    });
    let mut report = results.into_inner().map_err(|_| anyhow::anyhow!("a case panicked"))?;
    report.failures.sort();
    // Asked for by name: another plugin's report is not empty for a reason.
    if report.ran == 0 && (full || !(only.is_empty() && versions.is_empty())) {
        report.ran = 1;
    }
    Ok(report)
}
