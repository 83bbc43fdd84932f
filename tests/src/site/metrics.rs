//! What a monitoring system sees.

use picket_link::Dial as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{MONITOR, Site, until};
use crate::sentence;

impl Site {
    /// The sum of all series of the metrics page that begin so; none is zero.
    pub async fn metric(&self, series: &str) -> u64 {
        let page = self.metrics().await;
        let values = page.lines().filter(|line| line.starts_with(series)).map(|line| {
            let value = line
                .rsplit(' ')
                .next()
                .and_then(|value| value.parse::<u64>().ok());
            value.unwrap_or_else(|| panic!("`{line}` has no whole number"))
        });
        values.sum()
    }

    /// Handshakes at a listener, `agents` or `admin`, that ended so: `accepted`, or why not.
    pub async fn handshakes(&self, listener: &str, outcome: &str) -> u64 {
        self.metric(&format!(
            "master_handshakes_total{{listener=\"{listener}\",outcome=\"{outcome}\"}}"
        ))
        .await
    }

    /// Waits until a metric is at least this.
    pub async fn until_metric(&self, series: &str, least: u64) {
        until(&format!("{series} to be {least}"), async || {
            let value = self.metric(series).await;
            if value >= least { Ok(()) } else { Err(value) }
        })
        .await;
    }

    async fn metrics(&self) -> String {
        let mut io = self
            .operator
            .dial(MONITOR)
            .await
            .unwrap_or_else(|error| panic!("{MONITOR}: {}", sentence(&error)));
        let request = "GET /metrics HTTP/1.1\r\nHost: master\r\nConnection: close\r\n\r\n";
        io.write_all(request.as_bytes())
            .await
            .expect("a pipe takes a request");
        let mut answer = String::new();
        io.read_to_string(&mut answer).await.expect("metrics are text");
        let (head, page) = answer.split_once("\r\n\r\n").expect("an answer has a head");
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        page.to_owned()
    }
}
