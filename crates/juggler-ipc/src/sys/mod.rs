//! What depends on the platform: anonymous memory files and their mappings, which process lives, processes as descriptors,
//! and a process's end with
//! its parent.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(target_os = "linux")]
pub use linux::{
    Life, Mapping, create_memory_file, end_with_parent, file_length, process_life, reserve_memory, return_memory,
};
#[cfg(target_os = "linux")]
mod process;
#[cfg(target_os = "linux")]
pub use process::{Poller, await_process, kill_self, open_process, resident_bytes, signal_process};
#[cfg(target_os = "linux")]
mod socket;
#[cfg(target_os = "linux")]
pub use socket::{has_arrived, is_drained, receive_with_file, send_with_file};

#[cfg(all(test, not(loom)))]
pub mod testing;

#[cfg(not(target_os = "linux"))]
compile_error!("juggler-ipc shares memory on Linux only; another platform adds a file to src/sys");
