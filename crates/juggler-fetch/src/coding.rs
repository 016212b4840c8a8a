//! Bodies that the server compressed because it was asked to.

use crate::error::{Error, Kind};
use std::io::{self, Write};

/// What `Accept-Encoding` offers.
pub(crate) const OFFERED: &str = "zstd, br, gzip";

/// Decoded this much at a time, so that a little that decodes to very much does not fill the memory.
const BITE: usize = 16 << 10;

/// One body's decoder.
pub(crate) enum Decoder {
    Gzip(flate2::write::MultiGzDecoder<Vec<u8>>),
    Brotli(Box<brotli_decompressor::DecompressorWriter<Vec<u8>>>),
    Zstd(zstd::stream::write::Decoder<'static, Vec<u8>>),
}

impl Decoder {
    /// The decoder for a `Content-Encoding`, or `None` for a body as it is.
    ///
    /// # Errors
    /// [`Kind::Coding`] for an encoding that was not offered.
    pub fn of(encoding: Option<&str>) -> Result<Option<Self>, Error> {
        Ok(Some(match encoding.unwrap_or("identity").to_ascii_lowercase().as_str() {
            "identity" | "" => return Ok(None),
            "gzip" | "x-gzip" => Self::Gzip(flate2::write::MultiGzDecoder::new(Vec::new())),
            "br" => Self::Brotli(Box::new(brotli_decompressor::DecompressorWriter::new(Vec::new(), BITE))),
            "zstd" => Self::Zstd(zstd::stream::write::Decoder::new(Vec::new()).map_err(broken)?),
            other => {
                return Err(Error::new(Kind::Coding, format!("the server sends {other:?}, which was not asked for")));
            }
        }))
    }

    /// Decodes `bytes` and passes on what comes of them.
    ///
    /// # Errors
    /// [`Kind::Coding`], or that of `take`.
    pub fn feed(&mut self, bytes: &[u8], mut take: impl FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error> {
        for bite in bytes.chunks(BITE) {
            let out = match self {
                Self::Gzip(decoder) => decoder.write_all(bite).map(|()| decoder.get_mut()),
                Self::Brotli(decoder) => decoder.write_all(bite).map(|()| decoder.get_mut()),
                Self::Zstd(decoder) => decoder.write_all(bite).map(|()| decoder.get_mut()),
            };
            let out = out.map_err(broken)?;
            take(out)?;
            out.clear();
        }
        Ok(())
    }

    /// The body is over: passes on the rest.
    ///
    /// # Errors
    /// [`Kind::Coding`] if the encoding says that something is missing, or that of `take`.
    pub fn end(self, mut take: impl FnMut(&[u8]) -> Result<(), Error>) -> Result<(), Error> {
        let rest = match self {
            Self::Gzip(decoder) => decoder.finish().map_err(broken)?,
            Self::Brotli(mut decoder) => {
                decoder.close().map_err(broken)?;
                std::mem::take(decoder.get_mut())
            }
            Self::Zstd(mut decoder) => {
                decoder.flush().map_err(broken)?;
                decoder.into_inner()
            }
        };
        take(&rest)
    }
}

fn broken(error: io::Error) -> Error {
    Error::new(Kind::Coding, format!("the compressed content is broken: {error}"))
}
