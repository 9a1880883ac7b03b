//! What was measured, as a table for people or as one JSON object a line.

use serde_json::{Map, Value, json};

/// Prints figures as they come.
pub(crate) struct Figures {
    json: bool,
    bench: &'static str,
    data: Option<String>,
}

/// What a figure is compared with.
#[derive(Clone, Copy)]
pub(crate) enum Against {
    Nothing,
    /// What was asked for.
    AtLeast(f64),
    AtMost(f64),
    /// What the machine allows, measured in the same run.
    Limit(f64),
}

impl Figures {
    pub(crate) fn new(json: bool) -> Self {
        Self { json, bench: "", data: None }
    }

    /// The figures that follow are of this benchmark, with these recorded data if any.
    pub(crate) fn begin(&mut self, bench: &'static str, data: Option<&str>) {
        self.bench = bench;
        self.data = data.map(str::to_owned);
        if !self.json {
            let data = data.map_or_else(String::new, |data| format!(", {data}"));
            println!("\n{bench}{data}");
        }
    }

    pub(crate) fn put(&mut self, figure: &str, value: f64, against: Against) {
        // What is asked for is asked for records of 290 bytes.
        let against = match against {
            Against::AtLeast(_) | Against::AtMost(_) if self.data.is_some() => Against::Nothing,
            against => against,
        };
        if self.json {
            println!("{}", self.object(figure, value, against));
            return;
        }
        let compared = match against {
            Against::Nothing => String::new(),
            Against::AtLeast(target) => format!("{} of at least {}", verdict(value >= target), number(target)),
            Against::AtMost(target) => format!("{} of at most {}", verdict(value <= target), number(target)),
            Against::Limit(limit) => format!("{:.3} of {}", value / limit, number(limit)),
        };
        println!("  {figure:<28} {:>16}   {compared}", number(value));
    }

    fn object(&self, figure: &str, value: f64, against: Against) -> Value {
        let mut object = Map::new();
        object.insert("bench".into(), json!(self.bench));
        if let Some(data) = &self.data {
            object.insert("data".into(), json!(data));
        }
        object.insert("figure".into(), json!(figure));
        object.insert("value".into(), json!(value));
        match against {
            Against::Nothing => {}
            Against::AtLeast(target) => {
                object.insert("at_least".into(), json!(target));
                object.insert("met".into(), json!(value >= target));
            }
            Against::AtMost(target) => {
                object.insert("at_most".into(), json!(target));
                object.insert("met".into(), json!(value <= target));
            }
            Against::Limit(limit) => {
                object.insert("limit".into(), json!(limit));
                object.insert("ratio".into(), json!(value / limit));
            }
        }
        Value::Object(object)
    }
}

fn verdict(met: bool) -> &'static str {
    if met { "met:" } else { "MISSED:" }
}

/// Whole numbers in groups of three digits, small ones with decimals.
fn number(value: f64) -> String {
    if value.abs() < 100.0 {
        return format!("{value:.3}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!([0.125, 99.5, 1_234_567.4].map(number), ["0.125", "99.500", "1,234,567"]);
    }

    #[test]
    fn a_figure_is_one_object() {
        let mut figures = Figures::new(true);
        figures.begin("ingest", Some("a.log"));
        assert_eq!(
            figures.object("records_per_s", 50.0, Against::Limit(200.0)),
            json!({"bench": "ingest", "data": "a.log", "figure": "records_per_s", "value": 50.0, "limit": 200.0, "ratio": 0.25})
        );
        let object = figures.object("ack_p99_ms", 60.0, Against::AtMost(50.0));
        assert_eq!((&object["at_most"], &object["met"]), (&json!(50.0), &json!(false)));
    }
}
