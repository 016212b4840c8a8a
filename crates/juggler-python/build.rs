//! Passes on as `cfg`s the interpreter's version, its threading model, and whether the build is profile-guided; and redirects
//! calls into interpreters that unwind threads by force (see `src/unwind/mod.rs`).

macro_rules! guarded_calls {
    ($($(#[$cfg:meta])? $name:ident($($argument:ident),*);)*) => {
        const GUARDED_CALLS: &[&str] = &[$(stringify!($name)),*];
    };
}

include!("src/unwind/calls.rs");

fn main() {
    pyo3_build_config::use_pyo3_cfgs();
    if std::env::var("CARGO_ENCODED_RUSTFLAGS").is_ok_and(|flags| flags.contains("profile-use")) {
        println!("cargo:rustc-cfg=profile_guided");
    }
    println!("cargo:rerun-if-changed=src/unwind/calls.rs");
    if pyo3_build_config::get().version() < (pyo3_build_config::PythonVersion { major: 3, minor: 14 }) {
        for function in GUARDED_CALLS.iter().chain(&["PyVectorcall_Function"]) {
            println!("cargo:rustc-cdylib-link-arg=-Wl,--wrap={function}");
        }
    }
}
