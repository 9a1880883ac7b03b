//! What the link asks of the queue.

use std::future::pending;

use sigillo_proto::v1::{self, append_request};
use tracing::debug;

use super::{FLIGHT_MAX_BYTES, KEY_REASON, Queue, is_held};
use crate::{
    ClientError,
    link::{Outbox, hello_asking},
    session::{PROTOCOL, unix_nanos},
    spooled::keeper::Command,
};

impl Outbox for Queue {
    fn hello(&self) -> v1::Hello {
        let stand = self.stand.borrow();
        let resident = self.shared.options.resident;
        let agent = &self.shared.options.agent;
        // Of an epoch that is given up, or of none, we ask.
        if stand.identity.is_none() || self.refusal.is_some() {
            return v1::Hello { resident, ..hello_asking(agent) };
        }
        v1::Hello {
            protocol: PROTOCOL,
            agent: agent.clone(),
            epoch: stand.epoch.get(),
            first_retained: stand.first.get(),
            next_sequence: stand.next.get(),
            head: if stand.next.get() == 0 { Vec::new() } else { stand.hash.as_bytes().to_vec() }.into(),
            clock_unix_nano: unix_nanos(),
            resident,
            ..v1::Hello::default()
        }
    }

    fn heartbeat(&self) -> v1::Heartbeat {
        let progress = self.shared.progress.borrow();
        v1::Heartbeat {
            waiting_records: progress.waiting_records,
            oldest_unix_nano: progress.oldest_ns,
            clock_unix_nano: unix_nanos(),
        }
    }

    async fn resume(&mut self, welcome: &v1::Welcome) -> Result<(), ClientError> {
        self.welcome = welcome.clone();
        self.key_reason.clear();
        // Before anything is signed anew.
        self.command(Command::HeadsAfter(welcome.head_time_unix_nano));
        self.go_on().await?;
        self.command(Command::Acknowledged(self.acknowledged));
        self.command(Command::Urgent(is_held(&welcome.class)));
        let time = welcome.head_time_unix_nano;
        let key = self.ask(|reply| Command::Key { after: time, reply }).await?;
        self.head_key = (*welcome.head_key != key && self.sends_heads()).then(|| {
            let reason = match () {
                () if welcome.head_key.is_empty() => "",
                () if self.key_reason.is_empty() => KEY_REASON,
                () => &self.key_reason,
            };
            v1::HeadKey { public_key: key.to_vec().into(), reason: reason.to_owned() }
        });
        let first = self.stand.borrow().first;
        let asks = std::mem::take(&mut self.asks_receipts) && self.holds();
        self.seek(if asks { first } else { self.acknowledged })
    }

    async fn more(&mut self) -> Result<bool, ClientError> {
        if self.is_done() {
            return Ok(false);
        }
        match self.stand.changed().await {
            Ok(()) => Ok(true),
            // The thread has ended, and with it soon the link.
            Err(_) => pending().await,
        }
    }

    fn waits(&self) -> bool {
        self.acknowledged < self.stand.borrow().next
    }

    fn may_send(&self, credit: u64) -> bool {
        if self.head_key.is_some() || self.batches.is_empty() {
            return self.head_key.is_some() || self.waiting.is_some() || self.has_unread();
        }
        let room = credit.min(FLIGHT_MAX_BYTES).saturating_sub(self.bytes);
        match &self.waiting {
            Some(read) => read.bytes <= room,
            None => room > 0 && self.has_unread(),
        }
    }

    fn send(&mut self) -> Result<Option<(append_request::Message, u64)>, ClientError> {
        let read = match self.waiting.take() {
            Some(read) => Some(read),
            None => self.read()?,
        };
        let Some(read) = read else { return Ok(None) };
        let credit = self.welcome.credit_bytes.min(FLIGHT_MAX_BYTES);
        if !self.batches.is_empty() && self.bytes + read.bytes > credit {
            self.waiting = Some(read);
            return Ok(None);
        }
        match read.sent {
            Ok(sent) => {
                debug!(first = %sent.first, count = sent.count, "sending a batch");
                self.bytes += sent.bytes;
                self.batches.push_back(sent);
            }
            Err(head) if head.time > 0 => self.heads.push_back(head),
            Err(_) => {}
        }
        Ok(Some((read.message, read.bytes)))
    }

    fn rewind(&mut self) -> Result<(), ClientError> {
        self.seek(self.acknowledged)
    }

    async fn acknowledge(&mut self, ack: v1::Ack) -> Result<bool, ClientError> {
        let wrong = |what: &str| Err(ClientError::Protocol(format!("an ack {what}")));
        let mut news = false;
        if ack.head_time_unix_nano > self.head.time {
            while let Some(head) = self.heads.front().copied().filter(|head| head.time <= ack.head_time_unix_nano) {
                self.head = head;
                self.heads.pop_front();
                news = true;
            }
        }
        if let Some(receipt) = ack.receipt {
            let epoch = self.stand.borrow().epoch.get();
            let place = self.batches.iter().position(|sent| ack.epoch == epoch && sent.end.get() == ack.next_sequence);
            let Some(place) = place else { return wrong("covers something that was not sent") };
            let is_for = self.batches.get(place).is_some_and(|sent| {
                (receipt.epoch, receipt.first, receipt.count) == (epoch, sent.first.get(), sent.count)
                    && *receipt.batch_hash == *sent.hash.as_bytes()
            });
            if !is_for {
                return wrong("has a receipt for something else than its batch");
            }
            for sent in self.batches.drain(..=place) {
                self.bytes -= sent.bytes;
                self.acknowledged = self.acknowledged.max(sent.end);
            }
            if let Some(on_receipt) = &self.shared.options.on_receipt {
                on_receipt(&self.welcome, &receipt);
            }
            self.command(Command::Acknowledged(self.acknowledged));
            self.remember(false);
            news = true;
        }
        if news {
            let epoch = self.stand.borrow().epoch;
            self.shared.progress.send_modify(|progress| {
                progress.acknowledged = (epoch, self.acknowledged);
                progress.last_ack_ns = unix_nanos();
                progress.error.clear();
            });
            self.release();
        }
        Ok(news)
    }

    fn refused(&mut self, refusal: v1::Refusal) -> Result<(), ClientError> {
        self.refusal = Some(refusal);
        Ok(())
    }

    fn checked(&mut self) -> Result<(), ClientError> {
        self.release();
        Ok(())
    }

    fn farewell(&mut self) -> Option<append_request::Message> {
        self.remember(true);
        let reason = self.stand.borrow().ending.clone()?;
        Some(append_request::Message::Goodbye(v1::Goodbye { reason: reason.as_ref().to_owned() }))
    }

    fn connected(&mut self, welcome: &v1::Welcome) {
        self.shared.progress.send_modify(|progress| {
            progress.connected = true;
            progress.error.clear();
            progress.class.clone_from(&welcome.class);
            progress.origin.clone_from(&welcome.origin);
            let skew = i128::from(welcome.server_time_unix_nano) - i128::from(unix_nanos());
            progress.skew_ns = i64::try_from(skew).unwrap_or_default();
        });
    }

    fn disconnected(&mut self) {
        self.shared.progress.send_modify(|progress| progress.connected = false);
    }

    fn hindered(&mut self, trouble: &str) {
        self.shared.progress.send_modify(|progress| trouble.clone_into(&mut progress.error));
    }
}
