//! Configurations with mistakes: all of them are named at once, and nothing is started.

use std::fs;

use picket_tests::process::{Agent, Site, binary, command, run};

use crate::{Answers, read_by_people};

#[test]
fn a_master_names_every_mistake_in_its_settings_at_once() {
    let site = Site::at_rest();
    let data = site.master.data_dir();
    let text = format!(
        "data_dir = {data:?}\nbeat_interval = \"30\"\nadvertise = [\"nowhere\"]\nlistn = \"0.0.0.0:7443\"\n\
         [agents]\nlisten = \"0.0.0.0\"\n[liveness]\nlate_after = \"45 parsecs\"\noffline = \"100s\"\n[log]\nlevel = \"loud\"\n"
    );
    fs::write(site.master.config(), text).unwrap();
    let mut answers = Answers::keeping(site.plain(), &[&data]);
    for verb in ["check-config", "run"] {
        answers.refusal(&format!("picket-master {verb} --config master.toml"), || {
            run(command(&binary("picket-master"))
                .arg(verb)
                .arg("--config")
                .arg(site.master.config()))
        });
    }
    fs::write(site.master.config(), "data_dir = \"/var/lib/picket\nname = 3").unwrap();
    answers.refusal("picket-master check-config --config broken.toml", || {
        run(command(&binary("picket-master"))
            .arg("check-config")
            .arg("--config")
            .arg(site.master.config()))
    });
    let missing = site.root().join("missing.toml");
    answers.refusal("picket-master run --config missing.toml", || {
        run(command(&binary("picket-master"))
            .arg("run")
            .arg("--config")
            .arg(&missing))
    });
    read_by_people!("master_settings", answers);
}

#[test]
fn an_agent_names_every_mistake_in_its_settings_at_once() {
    let site = Site::at_rest();
    let agent = Agent::new(
        "oslo",
        &site.root().join("oslo"),
        &site.root().join("oslo.bundle"),
    );
    let text = "state_dir = \"relative\"\nmasters = [\"master.example.org\"]\n[master]\naddresses = [\"master.example.org\"]\n\
                [zerotier]\nenabled = \"perhaps\"\n[docker]\nsocket = \"docker.sock\"\n[networks]\nallow = [\"8056c2e21c00000\"]\n\
                [[deckies.networks]]\ndriver = \"host\"\nsubnet = \"10.77.0.0\"\n";
    fs::write(agent.config(), text).unwrap();
    let mut answers = Answers::keeping(site.plain(), &[&agent.state_dir()]);
    for verb in ["check-config", "run"] {
        answers.refusal(&format!("picket-agent {verb} --config agent.toml"), || {
            agent.ask(&[verb])
        });
    }
    read_by_people!("agent_settings", answers);
}
