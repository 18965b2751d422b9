//! `files`: text files that policy names, and the one that another implementation of the plugin keeps for the attachment.

use crate::bindings::files;
use crate::guest::Guest;
use crate::refusal::{Answer, Refusal};
use sandwire_cni::Command;
use sandwire_policy::matches_any;
use std::fs::Permissions;
use std::io::{Error, ErrorKind, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// No configuration that a plugin reads is larger.
const LARGEST: u64 = 1 << 20;

fn failed(what: &str, path: &Path, error: &Error) -> Refusal {
    let path = path.display();
    match error.kind() {
        ErrorKind::NotFound => Refusal::not_found(format!("{what} {path}: no such file or directory")),
        _ => Refusal::other(format!("{what} {path}: {error}")),
    }
}

fn text_of(path: &Path, flags: i32) -> Answer<String> {
    // A fifo would block the open until somebody writes to it; then it is seen to be none of ours.
    let file = std::fs::OpenOptions::new().read(true).custom_flags(flags | libc::O_NONBLOCK).open(path);
    let file = file.map_err(|e| failed("open", path, &e))?;
    if !file.metadata().map_err(|e| failed("read", path, &e))?.is_file() {
        return Err(Refusal::invalid(format!("{} is no regular file", path.display())));
    }
    let mut text = String::new();
    file.take(LARGEST).read_to_string(&mut text).map_err(|e| failed("read", path, &e))?;
    Ok(text)
}

/// Native tuning makes its directory, and the one above it, with mode 0600, in which only who has CAP_DAC_READ_SEARCH finds
/// anything. This process has dropped that, but they are its own (root's).
fn make_searchable(directory: &Path) {
    let mut all: Vec<&Path> = directory.ancestors().collect();
    all.reverse();
    for folder in all {
        if let Ok(found) = std::fs::symlink_metadata(folder)
            && found.is_dir()
            && found.permissions().mode() & 0o500 == 0o400
        {
            // What comes of it the open that follows says.
            let _ = std::fs::set_permissions(folder, Permissions::from_mode(found.permissions().mode() | 0o100));
        }
    }
}

impl Guest {
    /// The file of this attachment in a directory of policy's. Both ids are checked by the protocol (no separators).
    fn own_file(&mut self, directory: &str, suffix: &str) -> Answer<PathBuf> {
        let leads_elsewhere = !directory.starts_with('/') || directory.split('/').any(|part| part == "..");
        if leads_elsewhere || !matches_any(&self.grant.data_dirs, directory) {
            return Err(Refusal::not_granted(
                format!("look for a file of the attachment in {directory:?}"),
                self.grant.to_allow(self.grant.with_data_dir(directory)),
            ));
        }
        if suffix.len() > 32 || !suffix.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
            return Err(Refusal::invalid(format!("{suffix:?} can't end a file's name here: letters, digits, . _ -")));
        }
        let attachment = &self.session()?.subject.attachment;
        if attachment.container_id.is_empty() {
            return Err(Refusal::invalid("this call concerns no attachment: there is no file of its own"));
        }
        Ok(Path::new(directory).join(format!("{}_{}{suffix}", attachment.container_id, attachment.ifname)))
    }
}

impl files::Host for Guest {
    fn read(&mut self, name: String) -> Answer<String> {
        let Some(path) = self.grant.files.get(&name) else {
            let remedy = self.grant.to_allow(self.grant.with_file(&name));
            return Err(Refusal::not_granted(format!("read file {name:?}"), remedy));
        };
        text_of(Path::new(path), 0)
    }

    fn read_own(&mut self, directory: String, suffix: String) -> Answer<String> {
        let path = self.own_file(&directory, &suffix)?;
        if self.session()?.subject.verb == Command::Del {
            make_searchable(Path::new(&directory));
        }
        text_of(&path, libc::O_NOFOLLOW)
    }

    fn remove_own(&mut self, directory: String, suffix: String) -> Answer<()> {
        let path = self.own_file(&directory, &suffix)?;
        let session = self.session()?;
        session.may_change()?;
        // Nothing brings it back when an ADD fails.
        if session.subject.verb != Command::Del {
            return Err(Refusal::denied(format!("may not remove {}: only DEL may", path.display())));
        }
        std::fs::remove_file(&path).map_err(|e| failed("remove", &path, &e))
    }
}
