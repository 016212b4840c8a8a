//! What depends on the platform: anonymous memory files and their mappings.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub use linux::{Mapping, create_memory_file, file_length};

#[cfg(not(target_os = "linux"))]
compile_error!("juggler-ipc shares memory on Linux only; another platform adds a file to src/sys");
