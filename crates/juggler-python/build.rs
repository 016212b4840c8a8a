//! Passes the interpreter's version and threading model on as `cfg`s, and redirects calls into interpreters that unwind
//! threads by force (see `src/unwind/mod.rs`).

macro_rules! guarded_calls {
    ($($(#[$cfg:meta])? $name:ident($($argument:ident),*);)*) => {
        const GUARDED_CALLS: &[&str] = &[$(stringify!($name)),*];
    };
}

include!("src/unwind/calls.rs");

fn main() {
    pyo3_build_config::use_pyo3_cfgs();
    println!("cargo:rerun-if-changed=src/unwind/calls.rs");
    if pyo3_build_config::get().version() < (pyo3_build_config::PythonVersion { major: 3, minor: 14 }) {
        for function in GUARDED_CALLS.iter().chain(&["PyVectorcall_Function"]) {
            println!("cargo:rustc-cdylib-link-arg=-Wl,--wrap={function}");
        }
    }
}
