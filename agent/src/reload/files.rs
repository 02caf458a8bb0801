//! What the configuration and the rule files say now, read and compiled, or why they cannot be used.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

use purser_rules::{Diagnostic, LoadError, RuleSet, Source};

use crate::cli::{self, RuleFile, RunArgs};
use crate::config::{self, Config, ConfigError, DEFAULT_PATH};
use crate::manifest::{Digest, Hasher};

/// Where configuration and rules come from.
#[derive(Debug)]
pub(crate) struct Files {
    args: RunArgs,
    /// A configuration that came through a pipe: there is no reading it twice.
    fixed: Option<Config>,
    /// The same of rules.
    pinned: BTreeMap<PathBuf, Vec<u8>>,
}

/// What files say: the configuration, and name and digest of each rule file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Content {
    pub(crate) config: Config,
    files: Vec<(String, Digest)>,
    /// The digest of all rule files one after another, hexadecimal: `cat FILES | sha256sum`.
    pub(crate) sha256: String,
}

/// Why files cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The file, where it is one's fault.
    pub(crate) file: Option<String>,
    /// The line in it, from 1.
    pub(crate) line: Option<usize>,
    /// One line, with file and line where there are.
    pub(crate) error: String,
}

impl Files {
    /// The files that `args` name; `config` is what they said at the start.
    pub(crate) fn new(mut args: RunArgs, config: &Config) -> Self {
        if args.config.is_none() && Path::new(DEFAULT_PATH).exists() {
            // From now on its absence is an error, not a return to the defaults.
            args.config = Some(DEFAULT_PATH.into());
        }
        let special = |path: &PathBuf| fs::metadata(path).is_ok_and(|metadata| !metadata.is_file());
        let fixed = args.config.as_ref().filter(|path| special(path)).map(|_| config.clone());
        Self { args, fixed, pinned: BTreeMap::new() }
    }

    /// The path of the configuration.
    pub(crate) fn config_path(&self) -> &Path {
        path(&self.args)
    }

    /// What the configuration says now.
    pub(crate) fn config(&mut self) -> Result<Config, Failure> {
        if let Some(fixed) = &self.fixed {
            return Ok(fixed.clone());
        }
        if let Some(path) = &self.args.config {
            regular(path).map_err(|source| ConfigError::Read { path: path.clone(), source })?;
        }
        let config = self.args.configuration().map_err(|error| match error.downcast::<ConfigError>() {
            Ok(error) => error.into(),
            Err(error) => Failure::plain(cli::explain(&error)),
        })?;
        if self.args.config.is_none() && Path::new(DEFAULT_PATH).exists() {
            self.args.config = Some(DEFAULT_PATH.into());
        }
        Ok(config)
    }

    /// The rule files of a configuration. `first`: at the start, when pipes and the like are read, and kept.
    pub(crate) fn rules(&mut self, config: &Config, first: bool) -> Result<Vec<RuleFile>, ConfigError> {
        if config.rules_files.is_empty() {
            return Ok(cli::embedded_rules());
        }
        let mut files = Vec::new();
        for path in config::rule_paths(&config.rules_files)? {
            let wrong = |source| ConfigError::Rules { path: path.clone(), source };
            let name = path.to_string_lossy().into_owned();
            let text = match (self.pinned.get(&path), regular(&path)) {
                (Some(text), _) => text.clone(),
                (None, Err(error)) if !first || error.kind() == io::ErrorKind::NotFound => return Err(wrong(error)),
                (None, is_regular) => {
                    let text = cli::read_rule_file(&path).map_err(wrong)?;
                    if is_regular.is_err() {
                        self.pinned.insert(path, text.clone());
                    }
                    text
                }
            };
            files.push((name, text));
        }
        Ok(files)
    }
}

/// The path of the configuration that arguments name.
pub(crate) fn path(args: &RunArgs) -> &Path {
    args.config.as_deref().unwrap_or(Path::new(DEFAULT_PATH))
}

/// An error where there is nothing that can be read again: a pipe would wait for a writer, or be empty by now.
fn regular(path: &Path) -> io::Result<()> {
    let is_file = fs::metadata(path)?.is_file();
    is_file.then_some(()).ok_or_else(|| io::Error::other("it is not a regular file, which alone can be read anew"))
}

impl Content {
    pub(crate) fn new(config: Config, files: &[RuleFile]) -> Self {
        let mut all = Hasher::default();
        for (_, text) in files {
            all.update(text);
        }
        let files = files.iter().map(|(name, text)| (name.clone(), Digest::of(text))).collect();
        let sha256 = all.finish().hex();
        Self { config, files, sha256 }
    }
}

/// Compiles rule files as a configuration says.
pub(crate) fn compile(config: &Config, files: &[RuleFile]) -> Result<(RuleSet, Vec<Diagnostic>), LoadError> {
    let sources: Vec<Source<'_>> = files.iter().map(|(name, text)| Source { name, text }).collect();
    RuleSet::load(&sources, &config.load_options())
}

impl Failure {
    /// One that no file is named for.
    pub(crate) fn plain(error: String) -> Self {
        Self { file: None, line: None, error }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        let (path, line) = match &error {
            ConfigError::Parse { path, line, .. } => (path, Some(*line)),
            ConfigError::Read { path, .. }
            | ConfigError::Value { path, .. }
            | ConfigError::Rules { path, .. }
            | ConfigError::NoRules(path) => (path, None),
        };
        let file = Some(path.to_string_lossy().into_owned());
        Self { file, line, error: cli::one_line(&error.to_string()) }
    }
}

impl From<LoadError> for Failure {
    fn from(error: LoadError) -> Self {
        let place = error.diagnostics.last().and_then(Diagnostic::place);
        let (file, line) = (place.map(|place| place.file.clone()), place.map(|place| place.line));
        // The lines after the first show the place in the file.
        let text = error.to_string();
        Self { file, line, error: cli::one_line(text.lines().next().unwrap_or_default()) }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: &str = "- rule: A\n  desc: x\n  condition: evt.type = execve\n  output: x\n  priority: NOTICE\n";

    fn files(config: &Path) -> Files {
        let args = RunArgs { config: Some(config.to_owned()), ..RunArgs::default() };
        Files::new(args, &Config::default())
    }

    #[test]
    fn a_failure_names_file_line_and_error() {
        let directory = tempfile::tempdir().expect("a directory");
        let (config, rules) = (directory.path().join("c.yaml"), directory.path().join("r.yaml"));
        let mut files = files(&config);
        let missing = files.config().expect_err("missing");
        assert_eq!((missing.file.as_deref(), missing.line), (config.to_str(), None));
        assert!(missing.error.contains("cannot read the configuration"), "{missing}");
        fs::write(&config, "scope: all\nrules_file: []\n").expect("written");
        let wrong = files.config().expect_err("wrong");
        assert_eq!((wrong.file.as_deref(), wrong.line), (config.to_str(), Some(2)));
        assert!(wrong.error.contains("unknown key `rules_file`"), "{wrong}");
        fs::write(&config, format!("rules_files: [{}]\n", rules.display())).expect("written");
        let read = files.config().expect("valid");
        let missing = Failure::from(files.rules(&read, false).expect_err("missing"));
        assert_eq!(missing.file.as_deref(), rules.to_str());
        fs::write(&rules, format!("{RULE}- rule: B\n  desc: x\n  condition: no.such = 1\n  output: x\n")).expect("");
        let texts = files.rules(&read, false).expect("read");
        let wrong = Failure::from(compile(&read, &texts).expect_err("wrong"));
        assert_eq!(wrong.file.as_deref(), rules.to_str());
        assert!(wrong.line.is_some_and(|line| line >= 6), "{wrong:?}");
        assert!(wrong.error.starts_with(&format!("{}:", rules.display())) && !wrong.error.contains('\n'), "{wrong}");
    }

    #[test]
    fn a_pipe_is_read_once_and_never_waited_for() {
        let directory = tempfile::tempdir().expect("a directory");
        let pipe = directory.path().join("pipe");
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).expect("a pipe");
        let mut files = files(Path::new("/dev/null"));
        assert_eq!(files.config().expect("what it was at the start"), Config::default());
        let config = Config { rules_files: vec![pipe.clone()], ..Config::default() };
        let refused = files.rules(&config, false).expect_err("nobody writes").to_string();
        assert!(refused.contains("not a regular file"), "{refused}");
        let writer = std::thread::spawn({
            let pipe = pipe.clone();
            move || fs::write(pipe, RULE)
        });
        let first = files.rules(&config, true).expect("read");
        writer.join().expect("joined").expect("written");
        assert_eq!(first[0].1, RULE.as_bytes());
        assert_eq!(files.rules(&config, false).expect("kept"), first);
    }

    #[test]
    fn the_digest_is_that_of_the_files_together() {
        let file = |text: &str| ("x".to_owned(), text.as_bytes().to_vec());
        let one = Content::new(Config::default(), &[file("a"), file("b")]);
        assert_eq!(
            one.sha256, "fb8e20fc2e4c3f248c60c39bd652f3c1347298bb977b8b4d5903b85055620603",
            "printf ab | sha256sum"
        );
        let other = Content::new(Config::default(), &[file(""), file("ab")]);
        assert_eq!(one.sha256, other.sha256);
        assert_ne!(one, other, "each file counts");
    }
}
