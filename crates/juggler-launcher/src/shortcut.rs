//! What `juggler run program.py` and `juggler fetch` become, found out without Python.
//!
//! The rules are those of `python/juggler/cli/run.py`, which knows all of them and is asked about whatever is not plain
//! here: options of ours or of the interpreter, and installations of another shape than `bin` beside
//! `lib/python3.x/site-packages`. So there is nothing here that could be refused, and no message.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// A program to become: its path and its words, of which the first is that path, and its environment.
#[derive(Debug, PartialEq, Eq)]
pub struct Start {
    /// All the words, from the path on.
    pub words: Vec<OsString>,
    /// Names and values.
    pub environment: Vec<(OsString, OsString)>,
}

/// The command that needs no Python, beside the script.
const FETCH: &str = "juggler-fetch";

/// What runs the command of these words, or `None` where Python has to say.
///
/// `script` is the command in Python, whose first line names the interpreter that it was installed for.
pub fn shortcut(script: &Path, words: &[OsString], environment: Vec<(OsString, OsString)>) -> Option<Start> {
    let [command, program @ ..] = words else { return None };
    if command == "fetch" {
        let fetch = script.with_file_name(FETCH).into_os_string();
        let words = [fetch].into_iter().chain(program.iter().cloned()).collect();
        return Some(Start { words, environment });
    }
    if command != "run" || !is_plain(program.first()?) {
        return None;
    }
    let python = interpreter(script)?;
    let boot = boot_folder(script, &python)?;
    let words = [python.into_os_string()].into_iter().chain(program.iter().cloned()).collect();
    Some(Start { words, environment: with_boot(environment, &boot) })
}

/// Whether the word names what is to run, or says that the next one does: it is no other option.
fn is_plain(word: &OsStr) -> bool {
    word.as_bytes().first() != Some(&b'-') || ["-", "-c", "-m"].iter().any(|option| word == *option)
}

/// The interpreter in the first line of a script: a full path, without options.
fn interpreter(script: &Path) -> Option<PathBuf> {
    let path = first_line(script)?.strip_prefix(b"#!")?.to_vec();
    let plain = path.first() == Some(&b'/') && !path.iter().any(u8::is_ascii_whitespace);
    plain.then(|| PathBuf::from(OsString::from_vec(path)))
}

/// The folder of `sitecustomize`, in the package that lies beside the folder of the script.
fn boot_folder(script: &Path, python: &Path) -> Option<PathBuf> {
    // The folder of its packages is named as the interpreter itself: python3.14, or python3.14t.
    let version = python.canonicalize().ok()?.file_name()?.to_owned();
    let packages = script.parent()?.parent()?.join("lib").join(version).join("site-packages");
    let found = |root: &Path| {
        let folder = root.join("juggler/cli/boot");
        folder.join("sitecustomize.py").is_file().then_some(folder)
    };
    found(&packages).or_else(|| {
        // An editable installation says where the sources are.
        let sources = first_line(&packages.join("juggler.pth"))?;
        found(Path::new(OsStr::from_bytes(&sources)))
    })
}

/// The first line of a file, without its end, if it is no longer than paths are.
fn first_line(file: &Path) -> Option<Vec<u8>> {
    const LONGEST: u64 = 4096;
    let mut line = Vec::new();
    let length = BufReader::new(File::open(file).ok()?).take(LONGEST).read_until(b'\n', &mut line).ok()?;
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if length as u64 == LONGEST {
        return None;
    }
    Some(line)
}

/// The environment in which `sitecustomize` is found and told what to do. What is there keeps its place, which shows.
fn with_boot(mut environment: Vec<(OsString, OsString)>, boot: &Path) -> Vec<(OsString, OsString)> {
    let mut path = boot.as_os_str().to_owned();
    let theirs = environment.iter_mut().find(|(name, _)| name == "PYTHONPATH");
    let added = if let Some((_, value)) = theirs {
        // Nothing after the separator would mean the current folder.
        if !value.is_empty() {
            path.push(":");
            path.push(&*value);
        }
        ("JUGGLER_RUN_PYTHONPATH".into(), std::mem::replace(value, path))
    } else {
        ("PYTHONPATH".into(), path)
    };
    environment.extend([added, ("JUGGLER_RUN_DETECT".into(), "1".into())]);
    environment
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// An installation in a folder of its own, removed at the end.
    struct Installation(PathBuf);

    impl Installation {
        fn new(shebang: &str) -> Self {
            static COUNT: AtomicU32 = AtomicU32::new(0);
            let name = format!("juggler-launcher-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
            let root = std::env::temp_dir().join(name);
            fs::create_dir_all(root.join("bin")).unwrap();
            fs::create_dir_all(root.join("elsewhere")).unwrap();
            fs::write(root.join("elsewhere/python3.14"), "").unwrap();
            symlink(root.join("elsewhere/python3.14"), root.join("bin/python")).unwrap();
            let this = Self(root);
            fs::write(this.script(), shebang.replace("ROOT", this.0.to_str().unwrap())).unwrap();
            this
        }

        fn with_package(self, packages: &str) -> Self {
            let boot = self.0.join(packages).join("juggler/cli/boot");
            fs::create_dir_all(&boot).unwrap();
            fs::write(boot.join("sitecustomize.py"), "").unwrap();
            self
        }

        fn script(&self) -> PathBuf {
            self.0.join("bin/juggler-cli")
        }

        fn shortcut(&self, words: &[&str], environment: &[(&str, &str)]) -> Option<Start> {
            let words: Vec<_> = words.iter().map(OsString::from).collect();
            let environment = environment.iter().map(|(name, value)| (name.into(), value.into())).collect();
            shortcut(&self.script(), &words, environment)
        }
    }

    impl Drop for Installation {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    const SHEBANG: &str = "#!ROOT/bin/python\nimport sys\n";
    const PACKAGES: &str = "lib/python3.14/site-packages";

    #[test]
    fn a_program_becomes_the_interpreter_of_the_script() {
        let here = Installation::new(SHEBANG).with_package(PACKAGES);
        let start = here.shortcut(&["run", "a.py", "--report", "-m", ""], &[("A", "1")]).unwrap();
        let python = here.0.join("bin/python");
        assert_eq!(start.words, [python.as_os_str(), "a.py".as_ref(), "--report".as_ref(), "-m".as_ref(), "".as_ref()]);
        let boot = here.0.join(PACKAGES).join("juggler/cli/boot").into_os_string();
        let environment =
            [("A".into(), "1".into()), ("PYTHONPATH".into(), boot), ("JUGGLER_RUN_DETECT".into(), "1".into())];
        assert_eq!(start.environment, environment);
        for words in [["run", "-c", "1"], ["run", "-m", "a"], ["run", "-", "a"], ["run", "", "a"]] {
            assert_eq!(here.shortcut(&words, &[]).unwrap().words[1..], words[1..]);
        }
    }

    #[test]
    fn fetching_becomes_the_program_beside_the_script() {
        let here = Installation::new("");
        let start = here.shortcut(&["fetch", "-o", "a"], &[("A", "1")]).unwrap();
        let program = here.0.join("bin/juggler-fetch");
        assert_eq!(start.words, [program.as_os_str(), "-o".as_ref(), "a".as_ref()]);
        assert_eq!(start.environment, [("A".into(), "1".into())]);
    }

    #[test]
    fn a_path_of_the_user_comes_second_and_is_kept() {
        let here = Installation::new(SHEBANG).with_package(PACKAGES);
        let boot = here.0.join(PACKAGES).join("juggler/cli/boot").into_os_string().into_string().unwrap();
        for (path, whole) in [("one:two", format!("{boot}:one:two")), ("", boot)] {
            let start = here.shortcut(&["run", "a.py"], &[("PYTHONPATH", path), ("A", "1")]).unwrap();
            let environment = [
                ("PYTHONPATH".into(), whole.into()),
                ("A".into(), "1".into()),
                ("JUGGLER_RUN_PYTHONPATH".into(), path.into()),
                ("JUGGLER_RUN_DETECT".into(), "1".into()),
            ];
            assert_eq!(start.environment, environment);
        }
    }

    #[test]
    fn an_editable_installation_says_where_the_package_is() {
        let here = Installation::new(SHEBANG).with_package("sources");
        fs::create_dir_all(here.0.join(PACKAGES)).unwrap();
        assert_eq!(here.shortcut(&["run", "a.py"], &[]), None);
        for end in ["", "\n"] {
            fs::write(here.0.join(PACKAGES).join("juggler.pth"), format!("{}/sources{end}", here.0.display())).unwrap();
            let start = here.shortcut(&["run", "a.py"], &[]).unwrap();
            assert_eq!(start.environment[0].1, here.0.join("sources/juggler/cli/boot"));
        }
    }

    #[test]
    fn python_is_asked_about_everything_else() {
        let here = Installation::new(SHEBANG).with_package(PACKAGES);
        for words in [
            &["run"][..],
            &["run", "--report", "a.py"],
            &["run", "--", "a.py"],
            &["run", "-X", "dev", "a.py"],
            &["run", "-cpass"],
            &["run", "-h"],
            &["advise", "a.py"],
            &["--help"],
            &[],
        ] {
            assert_eq!(here.shortcut(words, &[]), None, "{words:?}");
        }
    }

    #[test]
    fn python_is_asked_where_the_installation_is_of_another_shape() {
        for shebang in [
            "",
            "ROOT/bin/python\n",
            "#!ROOT/bin/python -s\n",
            "#!python\n",
            "#!/bin/sh\n'''exec' \"ROOT/bin/python\"\n",
        ] {
            let here = Installation::new(shebang).with_package(PACKAGES);
            assert_eq!(here.shortcut(&["run", "a.py"], &[]), None, "{shebang:?}");
        }
        for packages in ["lib/python3.13/site-packages", "lib/python3.14/dist-packages"] {
            let here = Installation::new(SHEBANG).with_package(packages);
            assert_eq!(here.shortcut(&["run", "a.py"], &[]), None, "{packages}");
        }
        let here = Installation::new("#!ROOT/bin/gone\n").with_package(PACKAGES);
        assert_eq!(here.shortcut(&["run", "a.py"], &[]), None);
    }
}
