//! `purser manifest`: builds the expected manifest of an image and prints what a manifest says. Needs no kernel.

use std::{
    fs,
    io::{self, IsTerminal as _, Write as _},
    ops::ControlFlow,
    path::{Path, PathBuf},
    str::FromStr,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::{Args, Subcommand};

use super::{load, one_line, print, say};
use crate::{
    config,
    container::{Image, ImageRef, image_by_reference},
    manifest::{self, Progress, json},
};

/// What to do with manifests.
#[derive(Debug, Subcommand)]
pub enum ManifestCommand {
    /// Build the manifest of an image from its layers, as JSON.
    Build(BuildArgs),
    /// Print what a manifest says: the image, its layers, its files.
    Show {
        /// The manifest, as `purser manifest build` writes it
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// All files, not only code
        #[arg(long)]
        all: bool,
    },
}

/// Options of `purser manifest build`.
#[derive(Debug, Args)]
pub struct BuildArgs {
    /// An OCI archive or layout directory, `containerd:REF` or `podman:REF`
    #[arg(value_name = "IMAGE")]
    image: Origin,
    /// Which image of an archive or layout that holds several
    #[arg(long, value_name = "REF")]
    reference: Option<String>,
    /// Write it there instead of to standard output
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// containerd's socket
    #[arg(long, value_name = "PATH", default_value = "/run/containerd/containerd.sock")]
    socket: PathBuf,
    /// containerd's namespace [default: all are searched]
    #[arg(long, value_name = "NAME")]
    namespace: Option<String>,
    /// podman's graph root
    #[arg(long, value_name = "DIR", default_value = "/var/lib/containers/storage")]
    root: PathBuf,
    /// The configuration: limits
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Where an image comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Origin {
    Layout(PathBuf),
    Containerd(String),
    Podman(String),
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("containerd" | "podman", "")) => Err("name the image after the colon".to_owned()),
            Some(("containerd", reference)) => Ok(Self::Containerd(reference.to_owned())),
            Some(("podman", reference)) => Ok(Self::Podman(reference.to_owned())),
            // skopeo's spelling of the same.
            Some(("oci" | "oci-archive" | "oci-dir", path)) => Ok(Self::Layout(path.into())),
            _ => Ok(Self::Layout(text.into())),
        }
    }
}

pub(super) fn execute(command: &ManifestCommand) -> anyhow::Result<()> {
    match command {
        ManifestCommand::Build(args) => build(args),
        ManifestCommand::Show { file, all } => show(file, *all),
    }
}

fn build(args: &BuildArgs) -> anyhow::Result<()> {
    let config = load(args.config.as_deref())?;
    let limits = config.layer_limits();
    let image = args.image()?;
    let mut teller = Teller::new();
    let manifest = manifest::build(&image, None, &limits, &mut |progress| teller.tell(&progress))
        .with_context(|| format!("cannot build the manifest of {}", image.reference))?;
    teller.end();
    let Some(output) = &args.output else {
        return json::write(&manifest, io::BufWriter::new(io::stdout().lock()))
            .or_else(broken_pipe)
            .context("cannot write");
    };
    let mut file = io::BufWriter::new(
        fs::File::create(output).with_context(|| format!("cannot write the manifest {}", output.display()))?,
    );
    json::write(&manifest, &mut file)
        .and_then(|()| file.flush())
        .with_context(|| format!("cannot write the manifest {}", output.display()))?;
    say(format_args!("wrote {} files of {} to {}", manifest.len(), one_line(&image.reference), output.display()));
    Ok(())
}

impl BuildArgs {
    fn image(&self) -> anyhow::Result<Image> {
        let reference = match &self.image {
            Origin::Layout(path) => return Ok(manifest::image_from_oci_layout(path, self.reference.as_deref())?),
            Origin::Containerd(reference) => ImageRef::Containerd {
                socket: self.socket.clone(),
                namespace: self.namespace.clone(),
                reference: reference.clone(),
            },
            Origin::Podman(reference) => ImageRef::Podman { root: self.root.clone(), reference: reference.clone() },
        };
        Ok(image_by_reference(&reference)?)
    }
}

/// A manifest of a million files has about 250 MB.
const MAX_FILE_BYTES: u64 = 512 << 20;

fn show(file: &Path, all: bool) -> anyhow::Result<()> {
    let manifest = config::read_at_most(file, MAX_FILE_BYTES)
        .map_err(anyhow::Error::from)
        .and_then(|bytes| Ok(json::read(&bytes)?))
        .with_context(|| format!("cannot read the manifest {}", file.display()))?;
    let mut table = Vec::new();
    json::write_table(&manifest, all, &mut table)?;
    print(&table)
}

/// A reader that has left (`| head`) is no error.
fn broken_pipe(error: io::Error) -> io::Result<()> {
    if error.kind() == io::ErrorKind::BrokenPipe { Ok(()) } else { Err(error) }
}

/// Says on a terminal how far a long build is.
struct Teller {
    last: Option<Instant>,
    said: bool,
}

impl Teller {
    fn new() -> Self {
        Self { last: io::stderr().is_terminal().then(Instant::now), said: false }
    }

    fn tell(&mut self, progress: &Progress) -> ControlFlow<()> {
        if self.last.is_some_and(|last| last.elapsed() >= Duration::from_millis(200)) {
            self.last = Some(Instant::now());
            self.said = true;
            let (layer, layers, read) = (progress.layer + 1, progress.layers, progress.bytes >> 20);
            // When nobody reads there, there is nobody to tell.
            let _ = write!(io::stderr(), "\rlayer {layer} of {layers}: {read} MiB read ");
        }
        ControlFlow::Continue(())
    }

    fn end(&self) {
        if self.said {
            say("");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins() {
        for (text, want) in [
            ("image.tar", Origin::Layout("image.tar".into())),
            ("oci-archive:/a.tar", Origin::Layout("/a.tar".into())),
            ("containerd:docker.io/library/x:1", Origin::Containerd("docker.io/library/x:1".to_owned())),
            ("podman:x:1", Origin::Podman("x:1".to_owned())),
        ] {
            assert_eq!(text.parse(), Ok(want), "{text}");
        }
        assert!("podman:".parse::<Origin>().is_err());
    }
}
