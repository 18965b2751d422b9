//! Running a program to its end, with a limit on how long that may take.

use anyhow::{Context, Result, bail};
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

/// What programs that tests start find in PATH.
pub(crate) const PATH: &str = "/usr/bin:/usr/sbin:/bin:/sbin:/usr/local/sbin:/usr/local/bin";

/// A program that ended.
#[derive(Debug, Clone)]
pub struct Finished {
    /// How.
    pub status: ExitStatus,
    /// All of its standard output.
    pub stdout: String,
    /// All of its standard error.
    pub stderr: String,
    /// From its start to the end of its output: what a runtime waits for, which reads to the end.
    pub duration: Duration,
}

impl Finished {
    /// The standard output of a program that exited with 0.
    ///
    /// # Errors
    /// When it ended otherwise: with all it printed.
    pub fn success(self) -> Result<String> {
        if !self.status.success() {
            bail!("{}\n{}{}", self.status, self.stdout, self.stderr);
        }
        Ok(self.stdout)
    }
}

/// A program of the machine, with `PATH` as its whole environment. By its path: with a bare name and a PATH of its own the
/// standard library forks, and the kernel then copies the page tables of a process that holds an installation in memory, which
/// took half of the processor time of these tests; a path it starts by `posix_spawn`, which copies none.
pub(crate) fn program(name: &str) -> Command {
    let found = PATH.split(':').map(|folder| Path::new(folder).join(name)).find(|path| path.is_file());
    let mut command = Command::new(found.unwrap_or_else(|| name.into()));
    command.env_clear().env("PATH", PATH);
    command
}

/// Feed `input` to `child`, read its output to the end and wait for it, at most `patience`.
pub(crate) fn finish(mut child: Child, input: &[u8], started: Instant, patience: Duration) -> Result<Finished> {
    let mut stdin = child.stdin.take().context("no stdin")?;
    let input = input.to_vec();
    // A program that doesn't read its input to the end is entitled to that.
    std::thread::spawn(move || drop(stdin.write_all(&input)));
    let stdout = collect(child.stdout.take().context("no stdout")?);
    let stderr = collect(child.stderr.take().context("no stderr")?);
    let left = || patience.saturating_sub(started.elapsed());
    let (Ok(stdout), Ok(stderr)) = (stdout.recv_timeout(left()), stderr.recv_timeout(left())) else {
        child.kill()?;
        child.wait()?;
        bail!("no end after {patience:?}; killed");
    };
    let status = child.wait()?;
    Ok(Finished {
        status,
        stdout: String::from_utf8_lossy(&stdout).into_owned(),
        stderr: String::from_utf8_lossy(&stderr).into_owned(),
        duration: started.elapsed(),
    })
}

fn collect(mut stream: impl Read + Send + 'static) -> std::sync::mpsc::Receiver<Vec<u8>> {
    let (done, all) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was read before an error is what there is to show.
        let _ = stream.read_to_end(&mut bytes);
        let _ = done.send(bytes);
    });
    all
}
