//! `NAME.part.about`: what a part is a part of.

use crate::ranges::Ranges;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::OnceLock;

/// What tells one version of a file from another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Version {
    /// The `ETag`, where it is a strong one.
    pub etag: Option<String>,
    /// `Last-Modified`, where it is old enough to be sure of.
    pub modified: Option<String>,
    /// How long the whole file is.
    pub length: Option<u64>,
}

impl Version {
    /// What goes into `If-Range`.
    pub fn validator(&self) -> Option<&str> {
        self.etag.as_deref().or(self.modified.as_deref())
    }
}

/// What the file says.
#[derive(Debug)]
pub(crate) struct About {
    pub url: String,
    pub version: Version,
    /// Which boot of the machine it was written in.
    pub boot: String,
    /// What is there, where that is not simply the part's length.
    pub ranges: Option<Ranges>,
    /// How many bytes are on the disk for sure; all of `ranges`, if there are any.
    pub synced: Option<u64>,
}

impl About {
    /// Writes it in one step, so that whoever is killed meanwhile leaves the old one.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let mut text = format!("juggler-part 1\nurl {}\nboot {}\n", self.url, self.boot);
        let version = &self.version;
        let fields = [
            ("etag", version.etag.clone()),
            ("modified", version.modified.clone()),
            ("length", version.length.map(|length| length.to_string())),
            ("ranges", self.ranges.as_ref().map(Ranges::to_string)),
            ("synced", self.synced.map(|synced| synced.to_string())),
        ];
        for (key, value) in fields {
            text.extend(value.map(|value| format!("{key} {value}\n")));
        }
        // Who finds no last line finds a torn file.
        text.push_str("end\n");
        let new = path.with_extension("new");
        fs::write(&new, text)?;
        fs::rename(new, path)
    }

    pub fn read(path: &Path) -> Option<Self> {
        let text = fs::read_to_string(path).ok()?;
        let lines = text.strip_prefix("juggler-part 1\n")?.strip_suffix("end\n")?;
        let field =
            |key: &str| lines.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')).map(str::to_owned);
        let number = |key| field(key).and_then(|text: String| text.parse().ok());
        Some(Self {
            url: field("url")?,
            version: Version { etag: field("etag"), modified: field("modified"), length: number("length") },
            boot: field("boot")?,
            // Ranges that can't be read are none: the part's length says nothing then.
            ranges: field("ranges").map(|text| text.parse().unwrap_or_default()),
            synced: number("synced"),
        })
    }

    /// What of a part with `length` bytes is to be trusted.
    pub fn trusted(&self, length: u64) -> Ranges {
        let is_now = !self.boot.is_empty() && self.boot == boot();
        let mut ranges = match &self.ranges {
            Some(ranges) if is_now || self.synced.is_some() => ranges.clone(),
            Some(_) => Ranges::default(),
            None => Ranges::first(if is_now { u64::MAX } else { self.synced.unwrap_or(0) }),
        };
        ranges.cut(length);
        ranges
    }
}

/// Which boot of the machine this is.
pub(crate) fn boot() -> &'static str {
    static BOOT: OnceLock<String> = OnceLock::new();
    BOOT.get_or_init(|| {
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id");
        id.map_or_else(|_| String::new(), |id| id.trim().to_owned())
    })
}
