//! The built-in patterns.

/// A kind of secret.
pub(super) struct Rule {
    pub(super) name: &'static str,
    /// Lower-case texts of which one is in every line with such a secret. Empty: the pattern is tried on every line that has an `@`.
    pub(super) needles: &'static [&'static str],
    /// What participates of its groups is the secret.
    pub(super) pattern: &'static str,
    /// A line that it is for, with `S3cr3t` in the secret's place, and one that it must leave alone.
    #[cfg_attr(not(test), expect(dead_code, reason = "documents the rule, and is its test"))]
    pub(super) examples: &'static [&'static str],
    #[cfg_attr(not(test), expect(dead_code, reason = "documents the rule, and is its test"))]
    pub(super) not: &'static [&'static str],
}

/// A value after `=` or `:`, in quotes of any kind or without.
macro_rules! value {
    ($least:literal) => {
        concat!(
            r#"(?:\\+["']([^"']{"#,
            $least,
            r#",})|"((?:[^"\\]|\\.){"#,
            $least,
            r#",})|'((?:[^'\\]|\\.){"#,
            $least,
            r#",})|([^\s"'&,;]{"#,
            $least,
            r#",}))"#
        )
    };
}

/// After a name: its closing quote, `=`, `:` or `=>`, and where it changes the value that it had, in quotes.
macro_rules! is {
    () => {
        r#"\\*["']?\s*(?:=>|=|:)\s*(?:'((?:[^'\\]|\\.)*)'\s*=>\s*)?"#
    };
}

pub(super) const RULES: &[Rule] = &[
    Rule {
        name: "password",
        needles: &["passw", "passphrase", "_pwd", "pwd\"", "_pass"],
        pattern: concat!(r#"(?i)(?:password|passphrase|[_-]pwd|[_-]pass|passwd|pwd["'])[\w-]*"#, is!(), value!("1")),
        examples: &[
            "db password=S3cr3t host=db1",
            r#"{"password": "S3cr3t", "user": "alice"}"#,
            r#"{\"password\":\"S3cr3t\",\"user\":1}"#,
            "DB_PASSWORD='S3cr3t' ./run",
            "COMMAND=/usr/bin/env RESTIC_PASSWORD=S3cr3t restic backup",
            "MYSQL_PWD=S3cr3t mysql",
            "GET /login?user=a&password=S3cr3t&x=1",
            "Password: S3cr3t",
            r#"{"pwd":"S3cr3t"}"#,
            "('Password': '' => 'S3cr3t', 'Quota': '1' => '2')",
            "('Password': 'S3cr3t' => 'S3cr3t')",
        ],
        not: &[
            "Accepted password for alice from 192.0.2.1 port 22 ssh2",
            "pam_unix(passwd:chauthtok): password changed for alice",
            "pam_unix(chpasswd:chauthtok): user \"x\" does not exist in /etc/passwd",
            "alice : TTY=pts/0 ; PWD=/home/alice ; USER=root ; COMMAND=/usr/bin/passwd bob",
            "passwd: password updated successfully",
        ],
    },
    Rule {
        name: "token",
        needles: &["token", "authcookie"],
        pattern: concat!(r"(?i)(?:token|authcookie)[\w-]*", is!(), value!("8")),
        examples: &[
            "access_token=S3cr3tS3cr3t&x=1",
            r#"{"refreshToken":"S3cr3tS3cr3t"}"#,
            "Authorization: PVEAPIToken=root@pam!ci=S3cr3tS3cr3t",
            "X-Auth-Token: S3cr3tS3cr3t",
            "Cookie: PVEAuthCookie=S3cr3tS3cr3t; lang=it",
        ],
        not: &["Authentication token manipulation error", "unexpected token: '}'", "token_count=1024"],
    },
    Rule {
        name: "key",
        needles: &["secret", "api_key", "api-key", "apikey", "access_key", "accesskey", "private_key", "auth_key"],
        pattern: concat!(r"(?i)(?:secret|api[_-]?key|access_?key|private_key|auth_key)[\w-]*", is!(), value!("8")),
        examples: &[
            "client_secret=S3cr3tS3cr3t",
            r#"{"apiKey":"S3cr3tS3cr3t"}"#,
            "X-Api-Key: S3cr3tS3cr3t",
            "AWS_SECRET_ACCESS_KEY=S3cr3tS3cr3t",
        ],
        not: &["the secret garden", "keyboard=us", "private_key_file: /k"],
    },
    Rule {
        name: "authorization",
        needles: &["authorization", "bearer "],
        pattern: concat!(
            r#"(?i)(?:authorization\\*["']?\s*[:=]\s*\\*["']?(?:(?:basic|bearer|digest|token|negotiate)\s+)?"#,
            r#"([^\s"'\\,;]+)|bearer\s+([\w.~+/=-]{16,}))"#
        ),
        examples: &[
            "> Authorization: Basic S3cr3t",
            r#"{"authorization":"Bearer S3cr3t"}"#,
            "curl -H 'authorization: Bearer S3cr3t' https://192.0.2.1/",
            "sent bearer S3cr3tS3cr3tS3cr3t",
        ],
        not: &["bearer authentication is used", "authorization failed"],
    },
    Rule {
        name: "url",
        needles: &[],
        pattern: r#"://[^\s/?#"'@:]*:([^\s/?#"'@]+)@"#,
        examples: &["clone https://bob:S3cr3t@git.example.com/x.git", "postgres://app:S3cr3t@192.0.2.9:5432/db"],
        not: &["https://bob@git.example.com/x.git", "http://example.com:80/a@b", "http://example.com/a:b@c"],
    },
    Rule {
        name: "private-key",
        needles: &["private key-----"],
        pattern: concat!(
            r"(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----(.+?)",
            r"(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\z)"
        ),
        examples: &[
            "-----BEGIN PRIVATE KEY-----\nS3cr3t\n-----END PRIVATE KEY-----",
            r"-----BEGIN OPENSSH PRIVATE KEY-----\nS3cr3t\nS3cr3t==",
        ],
        not: &["-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----"],
    },
    Rule {
        name: "jwt",
        // The beginning of `{"` in Base64, and what follows it with the names that a header may begin with.
        needles: &["eyjh", "eyj0", "eyjr", "eyjj", "eyjl", "eyjq", "eyj4", "eyj6"],
        pattern: r"\b(eyJ[\w-]{8,}\.[\w-]{4,}\.[\w-]*)",
        examples: &["id eyJhbGciOiJIUzI1NiJ9.S3cr3tS3cr3t.S3cr3t ok"],
        not: &["eyJhbGciOiJIUzI1NiJ9 alone"],
    },
    Rule {
        name: "vendor-token",
        needles: &[
            "ghp_",
            "gho_",
            "ghu_",
            "ghs_",
            "ghr_",
            "github_pat_",
            "glpat-",
            "xoxb-",
            "xoxp-",
            "xoxa-",
            "xoxr-",
            "xoxs-",
            "sk_live_",
            "rk_live_",
            "aiza",
            "akia",
            "asia",
        ],
        pattern: concat!(
            r"\b(gh[pousr]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{16,}|xox[abprs]-[\w-]{10,}|[sr]k_live_\w{10,}",
            r"|AIza[\w-]{30,}|A[KS]IA[A-Z0-9]{16})"
        ),
        examples: &[
            "push with ghp_S3cr3tS3cr3tS3cr3tS3cr3t",
            "glpat-S3cr3tS3cr3tS3cr3t",
            "xoxb-1234-S3cr3tS3cr3t",
            "sk_live_S3cr3tS3cr3t",
            "AIzaS3cr3tS3cr3tS3cr3tS3cr3tS3cr3tS3cr3t",
        ],
        not: &["ghp_short", "FANTASIA", "asian food"],
    },
    Rule {
        name: "argument",
        needles: &["--pass", "--token", "--secret", "--api-key", "mysql", "mariadb", "sshpass", "curl", "identified "],
        pattern: concat!(
            r#"(?i)(?:--(?:password|passwd|passphrase|token|secret|api-key)\s+["']?([^\s"'-][^\s"']*)"#,
            // Two arguments of one command in the kernel's audit log.
            r#"|--(?:password|passwd|passphrase|token|secret|api-key)"\s+a\d+="?([^"\s]+)"#,
            r#"|(?:mysql|mariadb)[\w-]*"?\s(?:.*?\s)??-p([^\s"';]+)|(?:mysql|mariadb)[\w-]*"?\s.*?a\d+="-p([^"]+)"#,
            r#"|sshpass"?\s+(?:a\d+=")?-p(?:\s*|"\s+a\d+=")["']?([^\s"']+)"#,
            r#"|curl"?\s.*?(?:-u|--user)(?:[\s=]*|"\s+a\d+=")["']?[^\s:"']*:([^\s"']+)"#,
            r#"|identified\s+(?:with\s+\S+\s+)?by\s+(?:password\s+)?["']([^"']+))"#
        ),
        examples: &[
            "COMMAND=/usr/bin/borg --passphrase S3cr3t list",
            r#"type=EXECVE argc=3 a0="app" a1="--password" a2="S3cr3t""#,
            "mysql -u root -pS3cr3t db",
            r#"type=EXECVE argc=2 a0="mysql" a1="-pS3cr3t""#,
            "sshpass -p S3cr3t ssh root@192.0.2.1",
            r#"a0="sshpass" a1="-p" a2="S3cr3t" a3="ssh""#,
            "curl -s -u bob:S3cr3t https://192.0.2.1/",
            "ALTER USER 'a'@'%' IDENTIFIED BY 'S3cr3t'",
        ],
        not: &["mysqld: ready for connections", "borg --passphrase --list", "curl -s https://192.0.2.1/x"],
    },
];
