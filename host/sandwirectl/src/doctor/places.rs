//! Files on the node: there, root's, of one release with each other.

use super::{Check, configurations};
use crate::generation::Generation;
use crate::{component, files, image, inspect, policy};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::unistd::Uid;
use sandwire_policy::paths;
use sandwire_runtime::room::{self, Lack};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Who owns the directories, and who may write them.
pub(super) fn directories(bin_dirs: &[PathBuf]) -> Vec<Check> {
    let mut checks = Vec::new();
    let bins = bin_dirs.iter().map(|directory| (directory.as_path(), "links and the host program", false));
    for (path, what, made_when_needed) in bins.chain([
        (Path::new(paths::PLUGINS), "components", false),
        (Path::new("/etc/sandwire"), "the policy", false),
        (Path::new(paths::STATE), "state", false),
        (Path::new(paths::GENERATIONS), "generations", false),
        (Path::new(paths::LEASE_INDEX), "the index of leases", true),
        (Path::new(paths::NOTES), "notes of plugins", true),
        (Path::new(paths::LEASES), "leases", true),
        (Path::new(paths::JOURNAL), "the journal", true),
    ]) {
        let name = path.display().to_string();
        if !path.exists() {
            if !made_when_needed {
                checks.push(Check::fail(
                    &name,
                    format!("the directory of {what} is missing"),
                    "run: sandwirectl install",
                ));
            }
            continue;
        }
        checks.push(match files::untrusted(path) {
            Some(why) => Check::fail(
                &name,
                format!("{why}: who can change {what} can become root"),
                format!("look through it, then run: chown root: {name} && chmod go-w {name}"),
            ),
            None if !path.is_dir() => Check::fail(&name, "no directory", "remove it, then run: sandwirectl install"),
            None => Check::ok(&name, format!("{what}, root's")),
        });
    }
    checks.extend(
        [paths::STATE, paths::LEASE_INDEX, paths::NOTES, paths::LEASES, paths::JOURNAL].map(Path::new).map(room),
    );
    // The kernel forgets links, addresses and rules at a reboot; a journal that did not would undo the next boot's.
    if let Ok(found) = statfs(Path::new(paths::JOURNAL))
        && found.filesystem_type() != TMPFS_MAGIC
    {
        checks.push(Check::fail(
            format!("{} is forgotten at a reboot", paths::JOURNAL),
            "it is on a file system that is not",
            "mount a tmpfs on /run, as systemd does",
        ));
    }
    checks
}

/// Bytes, and files, below which the next pods will not find room.
const ROOM: (u64, u64) = (1 << 20, 16);

/// Whether calls can write where they keep state. A directory that is not there yet is made in the nearest that is.
fn room(path: &Path) -> Check {
    let what = format!("{} can be written", path.display());
    match room::look(path, ROOM) {
        Ok(()) => Check::ok(what, "there is room"),
        Err(Lack::ReadOnly(..)) if !Uid::effective().is_root() => {
            Check::note(what, "only root can tell", "run doctor as root")
        }
        Err(lack) => Check::fail(what, lack.to_string(), lack.remedy()),
    }
}

/// The policy, and whether it is what calls use.
pub(super) fn policy() -> Vec<Check> {
    let path = Path::new(paths::POLICY);
    if !path.exists() {
        return vec![Check::fail(paths::POLICY, "there is no policy", "run: sandwirectl install")];
    }
    let text = match files::read_trusted(path) {
        Ok(text) => text,
        Err(error) => {
            return vec![Check::fail(paths::POLICY, format!("{error:#}"), "see above; then run: sandwirectl apply")];
        }
    };
    if let Err(error) = policy::parse(&text) {
        return vec![Check::fail(paths::POLICY, format!("{error:#}"), "mend it, then run: sandwirectl apply")];
    }
    match Generation::active().and_then(|active| active.map(|active| Ok((active.about()?, active))).transpose()) {
        Ok(None) => vec![Check::fail(paths::ACTIVE, "no generation is in force", "run: sandwirectl apply")],
        Err(error) => vec![Check::fail(paths::ACTIVE, format!("{error:#}"), "run: sandwirectl apply")],
        Ok(Some((about, active))) if about.policy != component::digest(text.as_bytes()) => vec![Check::fail(
            paths::POLICY,
            format!("it is not what generation {} was made from: calls use the policy before", active.number),
            "run: sandwirectl apply (or, if you rolled back on purpose, put the policy back)",
        )],
        Ok(Some((_, active))) if active.untrusted().is_some() => vec![Check::fail(
            active.path.display().to_string(),
            active.untrusted().unwrap_or_default(),
            "find out who changed it, then run: sandwirectl apply, which makes a new generation",
        )],
        Ok(Some((_, active))) => {
            vec![Check::ok(paths::POLICY, format!("in force as generation {}", active.number))]
        }
    }
}

/// Whether every plugin can run.
pub(super) fn plugins() -> Vec<Check> {
    match inspect::rows() {
        Err(error) => vec![Check::fail("plugins", format!("{error:#}"), "run: sandwirectl apply")],
        Ok(rows) if rows.is_empty() => vec![Check::fail("plugins", "there are none", "run: sandwirectl install")],
        Ok(rows) => rows
            .into_iter()
            .map(|row| {
                let name = format!("plugin {}", row.plugin);
                match row.why {
                    // The text has its own remedy: it is the one that a refused call prints.
                    Some(why) => Check::fail(name, row.state, why),
                    None => Check::ok(name, row.state),
                }
            })
            .collect(),
    }
}

/// The program, its memory image, and its links.
pub(super) fn links(bin_dir: &Path) -> Vec<Check> {
    let binary = bin_dir.join("sandwire");
    let name = binary.display().to_string();
    let program = match (binary.symlink_metadata(), files::untrusted(&binary)) {
        (Err(error), _) => Check::fail(&name, error.to_string(), "run: sandwirectl install"),
        (Ok(_), Some(why)) => Check::fail(&name, why, "find out who changed it, then run: sandwirectl install"),
        (Ok(meta), None) if !meta.is_file() || meta.permissions().mode() & 0o111 == 0 => {
            Check::fail(&name, "no program", "run: sandwirectl install")
        }
        (Ok(_), None) if matches!(crate::install::is_changed(&binary), Ok(Some(true))) => Check::fail(
            &name,
            "it is not the program that sandwirectl installed: it may be of another release than what was compiled",
            "run: sandwirectl install, with --from and the directory of the release",
        ),
        (Ok(_), None) => Check::ok(&name, "there, root's"),
    };
    let can_tell = program.is_ok() && Path::new(paths::ACTIVE).exists() && Uid::effective().is_root();
    let image = can_tell.then(|| match (image::used(&binary), image::is_wanted()) {
        (Ok(Some((ready, all))), _) if ready >= all => {
            Check::ok("memory image", format!("calls of {name} begin with it"))
        }
        (Ok(None), Ok(false)) => Check::ok("memory image", "none, as policy says (memory_image = false)"),
        (Ok(used), _) => {
            let (ready, all) = used.unwrap_or_default();
            let which =
                if used.is_some() { format!("of {} of {all} plugins ", all - ready.min(all)) } else { String::new() };
            Check::note(
                "memory image",
                format!("calls {which}set everything up for themselves, and take some tenths of a millisecond longer"),
                "run: sandwirectl apply",
            )
        }
        (Err(error), _) => Check::fail("memory image", format!("{error:#}"), "run: sandwirectl apply"),
    });
    let grants = Generation::active().ok().flatten().and_then(|active| active.grants().ok()).unwrap_or_default();
    let configured = configurations::types();
    let links = grants.keys().map(|plugin| {
        let path = bin_dir.join(plugin);
        let name = path.display().to_string();
        if crate::install::is_ours(&path) {
            Check::ok(name, "leads to sandwire")
        } else if path.symlink_metadata().is_ok() {
            let remedy = "to let Sandwire take its place run: sandwirectl install --replace";
            match configured.contains(plugin) {
                true => Check::fail(
                    name,
                    "another program has this name, and a network of this node gets that one, without a sandbox; a package may have put it back",
                    remedy,
                ),
                false => Check::note(
                    name,
                    "another program has this name: configurations get that one, without a sandbox",
                    remedy,
                ),
            }
        } else {
            Check::fail(
                name,
                "missing: configurations that name it fail",
                format!("run: ln -s sandwire {}", path.display()),
            )
        }
    });
    std::iter::once(program).chain(image).chain(links).collect()
}
