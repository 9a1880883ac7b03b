//! Writes one activity and prints what became of it.
//!
//!     panel URL CERTIFICATES NAME FOLDER ACTION TYPE:ID MESSAGE [PATIENCE_MS [CLOSE_MS]]
//!
//! The folder CERTIFICATES holds `ca.pem`, `NAME.pem` and `NAME.key`; FOLDER is the queue's. Prints `durable N`, `queued: why` and
//! then, when everything is sent or `CLOSE_MS` have passed, `waiting N`.

use std::{path::Path, process::ExitCode, time::Duration};

use sigillo_panel::{Activity, Actor, ActorKind, Endpoint, Options, Outcome, Panel, PanelError, Written};

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [url, certificates, name, dir, action, target, message, times @ ..] = arguments.as_slice() else {
        eprintln!("usage: panel URL CERTIFICATES NAME FOLDER ACTION TYPE:ID MESSAGE [PATIENCE_MS [CLOSE_MS]]");
        return ExitCode::from(2);
    };
    let file = |name: String| Path::new(certificates).join(name);
    let endpoint = Endpoint {
        url: url.clone(),
        ca: file("ca.pem".into()),
        cert: file(format!("{name}.pem")),
        key: file(format!("{name}.key")),
        name: None,
        trust: None,
        remember: None,
    };
    let millis = |place: usize| times.get(place).and_then(|text| text.parse().ok()).map(Duration::from_millis);
    let options = Options {
        patience: millis(0).unwrap_or(Duration::from_secs(2)),
        resident: false,
        ..Options::new(endpoint, dir, "panel-example")
    };
    let (kind, id) = target.split_once(':').unwrap_or(("thing", target));
    let activity = Activity {
        actor: Some(Actor { id: "c-1042".into(), name: "m.rossi".into(), kind: ActorKind::Customer }),
        outcome: Some(Outcome::Success),
        message: message.clone(),
        ..Activity::new(action).on(kind, id)
    };
    match write(options, activity, millis(1).unwrap_or(Duration::from_secs(5))).await {
        Ok(waiting) => {
            println!("waiting {waiting}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("panel: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn write(options: Options, activity: Activity, close: Duration) -> Result<u64, PanelError> {
    let panel = Panel::open(options).await?;
    match panel.write(activity).await? {
        Written::Durable { sequence: Some(sequence), .. } => println!("durable {sequence}"),
        Written::Durable { sequence: None, .. } => println!("durable"),
        Written::Queued { why } => println!("queued: {why}"),
    }
    panel.close(close).await
}
