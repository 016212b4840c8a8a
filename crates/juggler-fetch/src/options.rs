//! What a caller asks for, and what comes back.

use crate::error::Error;
use juggler_policy::Rate;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// How files are fetched; the same for all of one call.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder that the files go to; made if it is not there.
    pub folder: PathBuf,
    /// Files in flight at once.
    pub limit: usize,
    /// Files in flight at once from one host.
    pub per_host: usize,
    /// Bytes a second, over all files.
    pub rate: Option<Rate>,
    /// Attempts after the first that a file gets, in a row without progress.
    pub retries: u32,
    /// The wait before the second attempt; it doubles with each further one.
    pub backoff: Duration,
    /// For a connection and the head of an answer.
    pub timeout: Duration,
    /// How long nothing may come before an attempt is given up.
    pub stall: Duration,
    /// When everything must be done.
    pub deadline: Option<Instant>,
    /// The longest wait that a server's `Retry-After` can ask for.
    pub patience: Duration,
    /// Whether what is there of a file is kept and continued.
    pub resume: bool,
    /// Whether a file of the same name is replaced; otherwise the new one gets a name beside it.
    pub overwrite: bool,
    /// Whether a file is on the disk before its outcome is told; without, a loss of power may take it, or spoil it.
    pub sync: bool,
    /// Whether to ask for gzip, brotli and zstd, and to decode them.
    pub compressed: bool,
    /// Further headers of every request.
    pub headers: Vec<(String, String)>,
    /// Where to look for credentials.
    pub netrc: Option<PathBuf>,
    /// The proxy for every request; `None` for those of the environment, empty for none at all.
    pub proxy: Option<String>,
    /// Certificates to trust besides the system's.
    pub cacert: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            folder: ".".into(),
            limit: 16,
            per_host: 6,
            rate: None,
            retries: 5,
            backoff: Duration::from_millis(500),
            timeout: Duration::from_secs(30),
            stall: Duration::from_secs(20),
            deadline: None,
            patience: Duration::from_secs(120),
            resume: true,
            overwrite: false,
            sync: true,
            compressed: false,
            headers: Vec::new(),
            netrc: None,
            proxy: None,
            cacert: None,
        }
    }
}

/// One file to fetch.
#[derive(Clone, Debug)]
pub struct Job {
    /// The caller's number for it.
    pub index: u64,
    /// The address.
    pub url: String,
    /// The name to give it, instead of the server's.
    pub name: Option<String>,
    /// What its content must hash to.
    pub checksum: Option<Checksum>,
}

/// A file that is whole, at its final name.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// Where it is.
    pub path: PathBuf,
    /// The address that it came from in the end.
    pub url: String,
    /// Its length in bytes.
    pub size: u64,
    /// How many of them were there before this call.
    pub resumed: u64,
}

/// How a job ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The job.
    pub job: Job,
    /// How many attempts were made.
    pub attempts: u32,
    /// From the first attempt to the end.
    pub took: Duration,
    /// The file, or why there is none.
    pub result: Result<Fetched, Error>,
}

/// An algorithm and the digest that a file's content must have.
#[derive(Clone, Debug)]
pub struct Checksum {
    pub(crate) algorithm: &'static ring::digest::Algorithm,
    pub(crate) digest: Vec<u8>,
}

impl FromStr for Checksum {
    type Err = String;

    /// Reads `sha256:HEX`; SHA-1, SHA-256, SHA-384 and SHA-512 are known.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, hex) = text.split_once(':').ok_or(format!("a checksum is ALGORITHM:HEX, not {text:?}"))?;
        let algorithm = match name.to_ascii_lowercase().as_str() {
            "sha1" => &ring::digest::SHA1_FOR_LEGACY_USE_ONLY,
            "sha256" => &ring::digest::SHA256,
            "sha384" => &ring::digest::SHA384,
            "sha512" => &ring::digest::SHA512,
            _ => return Err(format!("a checksum by {name:?}: known are sha1, sha256, sha384 and sha512")),
        };
        let digest = bytes_of_hex(hex).filter(|bytes| bytes.len() == algorithm.output_len());
        let digits = algorithm.output_len() * 2;
        let digest = digest.ok_or(format!("a checksum by {name} has {digits} hexadecimal digits, not {hex:?}"))?;
        Ok(Self { algorithm, digest })
    }
}

fn bytes_of_hex(hex: &str) -> Option<Vec<u8>> {
    let digits = hex.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect::<Option<Vec<u8>>>()?;
    (digits.len() % 2 == 0).then(|| digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// Bytes in hexadecimal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_is_read_whole_or_refused() {
        let text = format!("SHA256:{}", "0aF".repeat(21) + "9");
        assert_eq!(hex(&text.parse::<Checksum>().unwrap().digest), text[7..].to_lowercase());
        for wrong in ["", "abc", "md5:00", "sha256:00", "sha1:+1+1", "sha1:zz"] {
            assert!(wrong.parse::<Checksum>().is_err(), "{wrong}");
        }
    }
}
