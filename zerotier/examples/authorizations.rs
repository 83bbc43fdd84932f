//! Measures how many authorizations a second a controller takes: `authorizations HOME [MEMBERS]`.
//!
//! HOME is the home of a running `zerotier-one` that nobody needs: its controller gets a network, which is deleted at
//! the end, with members that do not exist.

use std::{collections::BTreeMap, env};

use anyhow::Context as _;
use picket_zerotier::{
    NodeId,
    controller::{Controller as _, MemberChange, NewNetwork},
    home::Home,
};
use tokio::time::Instant;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut arguments = env::args_os().skip(1);
    let home = arguments.next().context("name the home of a zerotier-one")?;
    let count: u64 = match arguments.next() {
        Some(count) => count.to_string_lossy().parse().context("MEMBERS is a number")?,
        None => 10_000,
    };
    let service = Home::new(home).service()?;
    let controller = service.controller(service.node().status().await?.address);
    let network = controller.create_network(&NewNetwork::default()).await?.id;
    for authorized in [true, false, true] {
        let changes: BTreeMap<_, _> = (1..=count)
            .filter_map(|number| {
                Some((
                    NodeId::new(0x10_0000_0000 + number).ok()?,
                    MemberChange::authorized(authorized),
                ))
            })
            .collect();
        let begun = Instant::now();
        let answers = controller.change_members(network, &changes).await;
        let took = begun.elapsed();
        let lost = changes.len() - answers.values().filter(|answer| answer.is_ok()).count();
        for error in answers
            .values()
            .filter_map(|answer| answer.as_ref().err())
            .take(3)
        {
            report(&format!("lost: {error}"));
        }
        report(&format!(
            "authorized={authorized}: {} changes in {took:.2?}, {:.0}/s, {lost} lost",
            changes.len(),
            f64::from(u32::try_from(changes.len())?) / took.as_secs_f64(),
        ));
    }
    controller.delete_network(network).await?;
    Ok(())
}

#[allow(clippy::print_stdout, reason = "this program prints its findings")]
fn report(line: &str) {
    println!("{line}");
}
