//! Records as a hosting provider's machines write them, from a seed: 290 bytes on average, and as compressible as the real
//! ones (4 to 10 times in blocks of 256 KiB).

use rand::Rng;
use rand_chacha::{ChaCha12Rng, rand_core::SeedableRng};
use sigillo_model::record::Record;
use sigillo_proto::{
    record::Fields,
    v1::{Actor, ActorKind, ContentPart, CorePart, Outcome, PersonalPart, Target},
};

/// 2026-03-02T08:00:00Z, nanoseconds since the epoch.
const START_UNIX_NANO: u64 = 1_772_438_400_000_000_000;

const PATHS: [&str; 16] = [
    "/",
    "/index.html",
    "/wp-login.php",
    "/wp-content/themes/storefront/style.css",
    "/wp-content/plugins/woocommerce/assets/js/frontend/cart.min.js",
    "/api/v2/orders",
    "/api/v2/customers/search",
    "/static/fonts/inter-latin-400.woff2",
    "/images/2026/03/banner-spring.webp",
    "/feed/",
    "/robots.txt",
    "/carrello/pagamento",
    "/prodotti/scarpe-uomo",
    "/assets/app.7f3a9c1e.js",
    "/xmlrpc.php",
    "/favicon.ico",
];
const AGENTS: [&str; 6] = [
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/134.0.0.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_3 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148",
    "Mozilla/5.0 (X11; Linux x86_64; rv:136.0) Gecko/20100101 Firefox/136.0",
    "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)",
    "curl/8.5.0",
    "WordPress/6.7.2; https://negozio.example",
];
const REFERERS: [&str; 4] = [
    "https://negozio.example/prodotti/scarpe-uomo?taglia=43&colore=nero&ordine=prezzo",
    "https://negozio.example/carrello/pagamento?passo=2",
    "https://www.google.com/search?q=negozio+example+scarpe+uomo+numero+43",
    "https://negozio.example/ricerca?q=giacca+invernale&pagina=3",
];
const USERS: [&str; 8] = ["root", "deploy", "m.rossi", "backup", "postgres", "g.bianchi", "www-data", "admin"];

/// An endless run of records; the same seed gives the same.
#[derive(Debug, Clone)]
pub struct Records {
    random: ChaCha12Rng,
    unix_nano: u64,
    host: String,
}

/// The records of a seed.
pub fn records(seed: u64) -> Records {
    let host = format!("web-{:02}.fra1", seed % 40);
    Records { random: ChaCha12Rng::seed_from_u64(seed), unix_nano: START_UNIX_NANO, host }
}

impl Iterator for Records {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        self.unix_nano += self.random.random_range(200_000..40_000_000);
        let fields = match self.random.random_range(0..10) {
            0..7 => self.access(),
            7..9 => self.login(),
            _ => self.act(),
        };
        Some(fields.encode())
    }
}

impl Records {
    /// A line of a web server's access log.
    fn access(&mut self) -> Fields {
        let path = self.pick(&PATHS);
        let agent = self.pick(&AGENTS);
        let referer = self.pick(&REFERERS);
        let method = if self.random.random_ratio(1, 6) { "POST" } else { "GET" };
        let status = self.pick(&[200, 200, 200, 200, 301, 304, 404, 403, 500]);
        let address = self.address();
        let bytes = self.random.random_range(180..60_000);
        let clock = self.clock();
        let original = format!(
            "{address} - - [02/Mar/2026:{clock} +0000] \"{method} {path} HTTP/1.1\" {status} {bytes} \"{referer}\" \"{agent}\""
        );
        let core = CorePart {
            severity_number: if status >= 500 { 17 } else { 9 },
            stream: "/var/log/nginx/access.log".into(),
            program: "nginx".into(),
            ..self.core()
        };
        let personal = PersonalPart { client_address: address, ..PersonalPart::default() };
        fields(core, Some(personal), original)
    }

    /// A line of sshd.
    fn login(&mut self) -> Fields {
        let user = self.pick(&USERS);
        let address = self.address();
        let process = self.random.random_range(900..32_000);
        let port = self.random.random_range(1_024..65_000);
        let accepted = self.random.random_ratio(1, 3);
        let verb = if accepted { "Accepted publickey" } else { "Failed password" };
        let clock = self.clock();
        let host = &self.host;
        let original =
            format!("Mar  2 {clock} {host} sshd[{process}]: {verb} for {user} from {address} port {port} ssh2");
        let core = CorePart {
            severity_number: 9,
            severity_text: "info".into(),
            event_name: "sshd.login".into(),
            action: "login".into(),
            outcome: if accepted { Outcome::Success } else { Outcome::Failure }.into(),
            stream: "/var/log/auth.log".into(),
            program: "sshd".into(),
            process_id: process,
            ..self.core()
        };
        let actor = Actor { id: user.into(), name: String::new(), kind: ActorKind::System.into() };
        let personal = PersonalPart { actor: Some(actor), client_address: address, ..PersonalPart::default() };
        fields(core, Some(personal), original)
    }

    /// An act in the customer panel.
    fn act(&mut self) -> Fields {
        let action = self.pick(&["server.reboot", "backup.delete", "dns.record.update", "invoice.view", "user.invite"]);
        let customer = self.random.random_range(10_000..10_400);
        let target = format!("srv-{}", self.random.random_range(50_000..52_000));
        let address = self.address();
        let session = format!("{:012x}", self.random.random::<u64>() >> 16);
        let original = format!(
            "{{\"action\":\"{action}\",\"customer\":\"c{customer}\",\"target\":\"{target}\",\"ip\":\"{address}\",\
             \"session\":\"{session}\",\"result\":\"ok\"}}"
        );
        let core = CorePart {
            severity_number: 9,
            event_name: "panel.act".into(),
            action: action.into(),
            target: Some(Target { r#type: "server".into(), id: target }),
            outcome: Outcome::Success.into(),
            program: "panel".into(),
            ..self.core()
        };
        let actor = Actor { id: format!("c{customer}"), name: String::new(), kind: ActorKind::Customer.into() };
        let personal = PersonalPart { actor: Some(actor), client_address: address, session, ..PersonalPart::default() };
        fields(core, Some(personal), original)
    }

    /// When and where.
    fn core(&self) -> CorePart {
        CorePart {
            // A log file tells milliseconds at best.
            event_time_unix_nano: self.unix_nano / 1_000_000 * 1_000_000,
            observed_time_unix_nano: self.unix_nano,
            host: self.host.clone(),
            ..CorePart::default()
        }
    }

    fn clock(&self) -> String {
        let second = (self.unix_nano - START_UNIX_NANO) / 1_000_000_000 + 8 * 3_600;
        format!("{:02}:{:02}:{:02}", second / 3_600 % 24, second / 60 % 60, second % 60)
    }

    fn address(&mut self) -> String {
        // Few clients make most of the requests.
        let client = self.random.random_range(0..60_u32).pow(2);
        format!("203.0.{}.{}", client / 250, client % 250 + 1)
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.random.random_range(0..from.len())]
    }
}

fn fields(core: CorePart, personal: Option<PersonalPart>, original: String) -> Fields {
    let content = ContentPart { original: original.into(), ..ContentPart::default() };
    Fields { core: Some(core), personal, content: Some(content), unreadable: Vec::new() }
}

#[cfg(test)]
mod tests {
    use sigillo_model::block::{BlockBuilder, compress};

    use super::*;

    #[test]
    #[allow(clippy::cast_precision_loss, reason = "ratios of numbers far below 2^52")]
    fn records_are_of_the_size_and_entropy_that_is_asked_for() {
        let mut records = records(7);
        let (mut count, mut raw, mut inflated, mut compressed) = (0, 0, 0, 0);
        for _ in 0..20 {
            let mut builder = BlockBuilder::default();
            while builder.bytes() < 256 << 10 {
                let record = records.next().unwrap();
                (count, raw) = (count + 1, raw + record.as_ref().length());
                builder.push(record.as_ref()).unwrap();
            }
            let block = builder.take();
            inflated += block.len();
            compressed += compress(&block, 1).len();
        }
        let mean = raw as f64 / f64::from(count);
        let ratio = inflated as f64 / compressed as f64;
        assert!((280.0..300.0).contains(&mean), "mean {mean}");
        assert!((4.0..10.0).contains(&ratio), "ratio {ratio}");
    }

    #[test]
    fn a_seed_gives_the_same_records_again() {
        assert!(records(1).take(100).eq(records(1).take(100)));
        assert!(!records(1).take(100).eq(records(2).take(100)));
    }
}
