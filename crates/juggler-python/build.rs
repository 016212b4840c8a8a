//! Passes the interpreter's version and threading model on as `cfg`s.
fn main() {
    pyo3_build_config::use_pyo3_cfgs();
}
