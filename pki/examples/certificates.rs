//! Writes one certificate of each kind into a folder, as PEM, for linters and other outside judges to look at.
//!
//! `cargo run -p picket-pki --example certificates -- DIR`

use std::{env, error::Error, fs, path::Path};

use jiff::Timestamp;
use picket_pki::{Authority, Identity, Key, lifetime, pem};
use uuid::Uuid;

#[allow(
    clippy::disallowed_methods,
    reason = "a program of its own: it is told the folder, and judges look at the present"
)]
fn main() -> Result<(), Box<dyn Error>> {
    let folder = env::args().nth(1).ok_or("say which folder to write into")?;
    let now = Timestamp::now();
    let authority = Authority::create(&"example.org".parse()?, now)?;
    let write = |name: &str, der: &[u8]| {
        let path = Path::new(&folder).join(format!("{name}.pem"));
        fs::write(path, pem::certificate_to_pem(der))
    };
    write("ca", authority.certificate())?;
    let names = ["master.example.org", "192.0.2.1", "2001:db8::1"].map(str::to_owned);
    let key = Key::generate()?;
    write("master", &authority.issue_master(key.public(), &names, now)?.der)?;
    for (name, identity, life) in [
        ("host", Identity::Host(Uuid::from_u128(7)), lifetime::HOST),
        ("bundle", Identity::Host(Uuid::from_u128(7)), lifetime::BUNDLE),
        ("operator", Identity::Operator("ana".parse()?), lifetime::OPERATOR),
    ] {
        let key = Key::generate()?;
        write(name, &authority.issue(key.public(), &identity, life, now)?.der)?;
    }
    Ok(())
}
