//! Edge values of every type, and what is refused: what `types` asks of each server.

use bytes::Bytes;
use jiff::{Timestamp, civil};
use model::{TimeOfDay, Value};

use crate::{harness::Harness, types::Case};

const PLAIN: &str = "CAST(c AS CHAR)";
const HEX: &str = "HEX(c)";

/// The value as a plain client writes it.
fn literal(value: &Value) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let quoted = |text: &str| match text.chars().all(|c| c <= '\u{ffff}') {
        true => format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''")),
        // MySQL fails whoever asks for the list of processes while the text of a statement there has such a character.
        false => format!("_utf8mb4 x'{}'", hex(text.as_bytes())),
    };
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Bool(truth) => truth.to_string(),
        Value::Int64(number) => number.to_string(),
        Value::Uint64(number) => number.to_string(),
        Value::Double(number) => format!("{number:e}"),
        Value::Decimal(text) => text.clone(),
        Value::Text(text) | Value::Json(text) => quoted(text),
        Value::Bytes(bytes) => format!("x'{}'", hex(bytes)),
        Value::Timestamp(at) => quoted(at.to_string().trim_end_matches('Z')),
        Value::DateTime(at) => quoted(&at.to_string()),
        Value::Date(at) => quoted(&at.to_string()),
        Value::Time(at) => quoted(&at.to_string()),
    }
}

fn case(declared: &'static str, shown: &'static str, values: Vec<Value>) -> Case {
    let values = values.into_iter().map(|value| (value.clone(), literal(&value))).collect();
    Case { declared, values, shown, narrower: &[] }
}

fn ints(values: &[i128]) -> Vec<Value> {
    let int = |n: &i128| i64::try_from(*n).map_or_else(|_| Value::Uint64(u64::try_from(*n).unwrap()), Value::Int64);
    values.iter().map(int).collect()
}

fn signed(declared: &'static str, bits: u32) -> Case {
    let half = 1_i128 << (bits - 1);
    let outside = if bits < 64 { vec![-half - 1, half] } else { vec![half] };
    case(declared, PLAIN, ints(&[&[-half, half - 1, 0, 1, -1][..], &outside].concat()))
}

fn unsigned(declared: &'static str, bits: u32, shown: &'static str) -> Case {
    let limit = 1_i128 << bits;
    let outside = if bits < 64 { vec![-1, limit] } else { vec![-1] };
    case(declared, shown, ints(&[&[0, 1, limit - 1][..], &outside].concat()))
}

fn doubles(values: &[f64]) -> Vec<Value> {
    values.iter().copied().map(Value::Double).collect()
}

fn decimals(values: &[&str]) -> Vec<Value> {
    values.iter().map(|text| Value::Decimal((*text).to_owned())).collect()
}

fn texts<T: AsRef<str>>(values: &[T]) -> Vec<Value> {
    values.iter().map(|text| Value::Text(text.as_ref().to_owned())).collect()
}

fn blobs(values: &[&[u8]]) -> Vec<Value> {
    values.iter().map(|bytes| Value::Bytes(Bytes::copy_from_slice(bytes))).collect()
}

fn jsons<T: AsRef<str>>(values: &[T]) -> Vec<Value> {
    values.iter().map(|text| Value::Json(text.as_ref().to_owned())).collect()
}

fn dates(values: &[&str]) -> Vec<Value> {
    values.iter().map(|text| Value::Date(text.parse::<civil::Date>().unwrap())).collect()
}

fn civils(values: &[&str]) -> Vec<Value> {
    values.iter().map(|text| Value::DateTime(text.parse::<civil::DateTime>().unwrap())).collect()
}

fn instants(values: &[&str]) -> Vec<Value> {
    values.iter().map(|text| Value::Timestamp(text.parse::<Timestamp>().unwrap())).collect()
}

fn times(values: &[&str]) -> Vec<Value> {
    values.iter().map(|text| Value::Time(text.parse::<TimeOfDay>().unwrap())).collect()
}

const STRINGS: &[&str] = &[
    "",
    "ab",
    "ab ",
    " ab",
    "ab      ",
    "abcd",
    "abcde",
    "abcd  ",
    "äöü🎉",
    "a\0b",
    "\t",
    "it's",
    "a\\b",
    "漢字",
    "NULL",
];

fn json_values() -> Vec<Value> {
    let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
    let mut values = jsons(&[
        "{}",
        "[]",
        "null",
        "true",
        " \"a\" ",
        "0",
        "-0",
        "-0.0",
        "1.0",
        "1.50",
        "1e5",
        "1e14",
        "1e15",
        "1E+2",
        "0.1e-6",
        "1e-15",
        "1e-16",
        "5e-324",
        "1.7976931348623157e308",
        "0.1234567890123456789",
        "1234567890123456.5",
        "9007199254740993",
        "9223372036854775807",
        "-9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "-9223372036854775809",
        "123456789012345678901234567890.123456789",
        r#"{"bb":1,"a":2,"b":3, "a": 4, "é":5, "":6}"#,
        r#"{"a":1,"A":2,"á":3,"a\u0000":4}"#,
        r#"["\u00e9\n\/\u0001\u001f\"\\\u007f🎉\ud83c\udf89\b\f\t\r"]"#,
        r#"[{"x":[]}, null,true,false]"#,
        "",
        "01",
        "1.",
        ".5",
        "-",
        "nul",
        "NaN",
        "1 2",
        "[1,]",
        "{a:1}",
        "{\"a\":1,}",
        "\"\\ud800\"",
        "1e400",
    ]);
    values.extend(jsons(&[nested(31), nested(32), nested(100), nested(101)]));
    let named = |bytes: usize| format!("{{\"{}\": 1}}", "x".repeat(bytes));
    values.extend(jsons(&[named(65_535), named(65_536)]));
    values
}

fn on_either_mysql() -> Vec<Case> {
    let long = |text: &str, times: usize| text.repeat(times);
    let nines = |n: usize| "9".repeat(n);
    let wide = [format!("{}.{}", nines(35), nines(30)), format!("-{}.{}", nines(35), nines(30)), nines(36)];
    let finest =
        [format!("0.{}1", "0".repeat(29)), format!("-0.{}1", "0".repeat(29)), format!("0.{}1", "0".repeat(30))];
    let decimal_65: Vec<&str> =
        wide.iter().chain(&finest).map(String::as_str).chain(["0", "-0", "1.5", "00012.50"]).collect();
    let bytes: [&[u8]; 7] = [&[], &[1], &[1, 0], &[0], &[255, 0, 39, 92], &[1, 2, 3, 4, 5], b"ab  "];
    vec![
        case("BOOLEAN", PLAIN, vec![Value::Bool(true), Value::Bool(false)]),
        signed("TINYINT", 8),
        signed("SMALLINT", 16),
        signed("MEDIUMINT", 24),
        signed("INT", 32),
        signed("BIGINT", 64),
        unsigned("TINYINT UNSIGNED", 8, PLAIN),
        unsigned("SMALLINT UNSIGNED", 16, PLAIN),
        unsigned("MEDIUMINT UNSIGNED", 24, PLAIN),
        unsigned("INT UNSIGNED", 32, PLAIN),
        unsigned("BIGINT UNSIGNED", 64, PLAIN),
        unsigned("BIT(1)", 1, "CAST(c + 0 AS CHAR)"),
        unsigned("BIT(5)", 5, "CAST(c + 0 AS CHAR)"),
        unsigned("BIT(64)", 64, "CAST(c + 0 AS CHAR)"),
        case("DECIMAL(65,30)", PLAIN, decimals(&decimal_65)),
        case("DECIMAL(5,2)", PLAIN, decimals(&["999.99", "-999.99", "1000", "0.001", "0.01", "-0.00"])),
        case("DECIMAL(5,2) UNSIGNED", PLAIN, decimals(&["999.99", "1000", "0.01", "-0.01", "0", "-0.00"])),
        case("DOUBLE", PLAIN, {
            doubles(&[0.0, -0.0, 0.1, 1.0 / 3.0, -1e300, 5e-324, f64::MIN_POSITIVE, f64::MAX, f64::MIN])
        }),
        case("DOUBLE UNSIGNED", PLAIN, doubles(&[0.0, 0.1, 5e-324, f64::MAX, -1.0, -5e-324])),
        Case {
            narrower: &[],
            ..case("FLOAT", "CAST(c + 0e0 AS CHAR)", {
                let (tiny, huge) = (f64::from(f32::from_bits(1)), f64::from(f32::MAX));
                doubles(&[0.0, -0.0, 0.1, 16_777_217.0, tiny, huge, -huge, 1e39, -1e39, f64::from(f32::MIN_POSITIVE)])
            })
        },
        case("FLOAT UNSIGNED", "CAST(c + 0e0 AS CHAR)", doubles(&[0.0, 0.1, -1.0, 1e39])),
        case("CHAR(4)", HEX, texts(STRINGS)),
        case("VARCHAR(4)", HEX, texts(STRINGS)),
        case("VARCHAR(4) CHARACTER SET latin1", HEX, texts(&["é€ÿ", "\u{81}", "\u{80}", "漢", "ab ", "abcde", "🎉"])),
        case("VARCHAR(4) CHARACTER SET ascii", HEX, texts(&["~\u{7f}", "é", "ab ", "abcde"])),
        case("VARCHAR(4) CHARACTER SET utf8mb3", HEX, texts(&["漢\u{ffff}", "🎉", "éé", "abcde"])),
        case(
            "TINYTEXT",
            HEX,
            texts(&[long("a", 255), long("a", 256), long("é", 127), long("é", 128), "a ".to_owned()]),
        ),
        case("TEXT", HEX, texts(&[long("a", 65_535), long("a", 65_536), long("🎉", 16_383), long("🎉", 16_384)])),
        case("MEDIUMTEXT", HEX, texts(&["", "long 🎉"])),
        case("LONGTEXT", HEX, texts(&["", "long 🎉"])),
        case("BINARY(4)", HEX, blobs(&bytes)),
        case("VARBINARY(4)", HEX, blobs(&bytes)),
        case("TINYBLOB", HEX, blobs(&[&[], &[7; 255], &[7; 256]])),
        case("BLOB", HEX, blobs(&[&[0; 65_535], &[0; 65_536]])),
        case("MEDIUMBLOB", HEX, blobs(&[&[0, 255]])),
        case("LONGBLOB", HEX, blobs(&[&[0, 255]])),
        Case {
            narrower: &[("'0000-01-01'", "the year 0 is none of our era's")],
            ..case("DATE", PLAIN, dates(&["0001-01-01", "1000-01-01", "9999-12-31", "2024-02-29", "0000-01-01"]))
        },
        case("DATETIME", PLAIN, civils(&["1000-01-01T00:00:00", "9999-12-31T23:59:59", "2024-03-31T02:30:00.5"])),
        case("DATETIME(3)", PLAIN, civils(&["2024-02-29T23:59:59.123", "2024-02-29T23:59:59.1234"])),
        case("DATETIME(6)", PLAIN, {
            civils(&["0001-01-01T00:00:00", "9999-12-31T23:59:59.999999", "2024-03-31T02:30:00.000001"])
        }),
        case("TIMESTAMP", PLAIN, instants(&["2024-03-31T01:30:00Z", "2024-03-31T01:30:00.5Z"])),
        case("TIMESTAMP(6)", PLAIN, {
            instants(&[
                "1970-01-01T00:00:01Z",
                "1970-01-01T00:00:00Z",
                "1969-12-31T23:59:59Z",
                "2038-01-19T03:14:07.999999Z",
                "2038-01-19T03:14:08Z",
                "2106-02-07T06:28:15Z",
                "2106-02-07T06:28:16Z",
            ])
        }),
        case("TIME", PLAIN, times(&["00:00:00", "-00:00:01", "25:30:00", "838:59:59", "-838:59:59", "10:00:00.5"])),
        Case {
            narrower: &[("'838:59:59.500000'", "it is past the range that MySQL has")],
            ..case("TIME(6)", PLAIN, times(&["838:59:59", "-838:59:59", "839:00:00", "-00:00:00.000001"]))
        },
        case("YEAR", PLAIN, ints(&[0, 1901, 2155, 1900, 2156, 1, 69, 70, 99, 2024])),
        case("ENUM('a','B','it''s','x,y','')", HEX, texts(&["a", "B", "b", "it's", "x,y", "", "1", "z", "a "])),
        case("SET('x','y','it''s')", HEX, texts(&["", "x", "it's,x", "x,x", "y,x,y", "q", "X", "x,q", "1"])),
        Case { narrower: &[], ..case("JSON", PLAIN, json_values()) },
    ]
}

fn on_mariadb(cases: &mut Vec<Case>) {
    for case in cases.iter_mut() {
        match case.declared {
            "JSON" => case.narrower = &[("'1.'", "it is no JSON")],
            "TIME(6)" => {
                case.values.extend(times(&["838:59:59.5"]).into_iter().map(|value| (value.clone(), literal(&value))))
            }
            _ => {}
        }
    }
    let uuids = [
        "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
        "a0eebc999c0b4ef8bb6d6bb9bd380a11",
        "00000000-0000-0000-0000-000000000000",
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
        "a0eebc99",
        "",
        "g0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
    ];
    cases.push(case("UUID", PLAIN, texts(&uuids)));
    cases.push(case(
        "INET4",
        PLAIN,
        texts(&["0.0.0.0", "255.255.255.255", "10.0.0.1", "256.0.0.1", "10.0.0", "::1", ""]),
    ));
    let addresses = [
        "::",
        "::1",
        "2001:DB8:0:0:0:0:0:1",
        "::ffff:10.0.0.1",
        "::10.0.0.1",
        "1:0:0:2:0:0:0:3",
        "::1:2",
        "1:2:3:4:5:6:7:0",
        "0:2:3:4:5:6:7:8",
        "1:0:2:3:4:5:6:7",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        "10.0.0.1",
        "::g",
        "",
    ];
    cases.push(case("INET6", PLAIN, texts(&addresses)));
}

fn on_sqlite() -> Vec<Case> {
    let (text, own) = ("c", "CAST(c AS TEXT)");
    let bytes: [&[u8]; 4] = [&[], &[0, 255], b"text", &[1, 2, 3, 4, 5]];
    vec![
        case("BOOLEAN", own, vec![Value::Bool(true), Value::Bool(false)]),
        signed("TINYINT", 8),
        signed("SMALLINT", 16),
        signed("MEDIUMINT", 24),
        signed("INT", 32),
        signed("BIGINT", 64),
        unsigned("INT UNSIGNED", 32, own),
        unsigned("BIGINT UNSIGNED", 63, own),
        case("DECIMAL(38,10)", own, {
            decimals(&["1234567890123456789012345678.0123456789", "-0.0000000001", "0", "-0", "0.00000000001"])
        }),
        case("DECIMAL(12,2)", own, decimals(&["9999999999.99", "-0.01", "10000000000", "0.001"])),
        case(
            "DOUBLE",
            "c",
            doubles(&[0.0, -0.0, 0.1, 1.0 / 3.0, -1e300, 5e-324, f64::MIN_POSITIVE, f64::MAX, f64::MIN]),
        ),
        case("VARCHAR(4)", text, texts(STRINGS)),
        case("TEXT", text, texts(STRINGS)),
        case("VARBINARY(4)", HEX, blobs(&bytes)),
        case("BLOB", HEX, blobs(&bytes)),
        case("DATE", own, dates(&["0001-01-01", "9999-12-31", "2024-02-29", "0000-01-01"])),
        case("DATETIME(3)", own, civils(&["2024-02-29T23:59:59.123", "2024-02-29T23:59:59.1234"])),
        case("DATETIME", own, civils(&["0001-01-01T00:00:00", "9999-12-31T23:59:59.999999"])),
        case("TIMESTAMP", own, instants(&["1969-12-31T23:59:59Z", "2038-01-19T03:14:08.000001Z"])),
        case("TIME", own, times(&["00:00:00", "838:59:59", "-00:00:00.000001", "839:00:00"])),
        case("JSON", own, json_values()),
    ]
}

/// As a plain client of PostgreSQL writes it: every literal may stand in quotes.
fn quoted(value: &Value) -> String {
    let text = match value {
        Value::Null => return "NULL".to_owned(),
        Value::Bytes(bytes) => format!("\\x{}", bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>()),
        Value::Timestamp(at) => at.to_string(),
        Value::Text(text) | Value::Json(text) => text.clone(),
        other => literal(other).trim_matches('\'').to_owned(),
    };
    format!("'{}'", text.replace('\'', "''"))
}

fn pg(declared: &'static str, values: Vec<Value>) -> Case {
    let values = values.into_iter().map(|value| (value.clone(), quoted(&value))).collect();
    Case { declared, values, shown: "c::text", narrower: &[] }
}

/// Of each the JSON in the API, and PostgreSQL's own notation.
fn arrays(declared: &'static str, values: &[(&str, &str)]) -> Case {
    let both =
        |(json, theirs): &(&str, &str)| (Value::Json((*json).to_owned()), format!("'{}'", theirs.replace('\'', "''")));
    Case { declared, values: values.iter().map(both).collect(), shown: "c::text", narrower: &[] }
}

/// What the types of PostgreSQL in the corpus rest on.
pub async fn declare_types(h: &Harness) {
    if !h.is_postgres() {
        return;
    }
    // An extension is one for all tests.
    h.sql("SELECT pg_advisory_xact_lock(5446); CREATE EXTENSION IF NOT EXISTS citext SCHEMA public").await;
    h.sql(
        "CREATE TYPE mood AS ENUM ('a', 'B', 'it''s', 'x,y', ''); CREATE DOMAIN code AS VARCHAR(4); \
         CREATE DOMAIN codes AS code; CREATE DOMAIN amount AS NUMERIC(5,2); \
         CREATE COLLATION loose (provider = icu, locale = 'und-u-ks-level2', deterministic = false); \
         CREATE DOMAIN loosely AS TEXT COLLATE loose",
    )
    .await;
}

fn on_postgres() -> Vec<Case> {
    let nines = |n: usize| "9".repeat(n);
    let wide = [format!("{}.{}", nines(35), nines(30)), nines(36), format!("0.{}1", "0".repeat(30))];
    let wide: Vec<&str> = wide.iter().map(String::as_str).chain(["0", "-0", "00012.50", "-0.00"]).collect();
    let any = ["0", "-0", "1.50", "1.5", "007", "-0.00", "-12345678901234567890.5", "1e5", "NaN", "Infinity"];
    let bytes: [&[u8]; 4] = [&[], &[0, 255, 39, 92], b"ab  ", b"\\x00"];
    let uuids = [
        "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11",
        "{a0eebc999c0b4ef8bb6d6bb9bd380a11}",
        "00000000-0000-0000-0000-000000000000",
        "a0eebc99",
        "",
        "g0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
    ];
    let hosts =
        ["10.0.0.1", "10.0.0.1/8", "10.0.0.1/32", "::1", "2001:DB8::1/64", "::ffff:10.0.0.1", "10.0.0.1/33", "x", ""];
    let networks = ["10.0.0.0/8", "10.0.0.1", "0.0.0.0/0", "2001:DB8::/32", "::/0", "10.0.0.1/8", "::1/64", "x", ""];
    let (tiny, huge) = (f64::from(f32::from_bits(1)), f64::from(f32::MAX));
    let infinite: &[_] = &[("'NaN'", "it is no number"), ("'inf'", "it is infinite")];
    vec![
        pg("BOOLEAN", vec![Value::Bool(true), Value::Bool(false)]),
        pg("SMALLINT", ints(&[-32_768, 32_767, 0, -32_769, 32_768])),
        pg("INTEGER", ints(&[-2_147_483_648, 2_147_483_647, -2_147_483_649, 2_147_483_648])),
        pg("BIGINT", ints(&[i64::MIN.into(), i64::MAX.into(), 1 << 63])),
        Case { narrower: &[], ..pg("NUMERIC(65,30)", decimals(&wide)) },
        pg("NUMERIC(5,2)", decimals(&["999.99", "-999.99", "1000", "0.001", "0.01", "-0.00"])),
        Case {
            narrower: &[("'NaN'", "it is no number"), ("'Infinity'", "it is infinite")],
            ..pg("NUMERIC", decimals(&any))
        },
        Case {
            narrower: infinite,
            ..pg("DOUBLE PRECISION", {
                doubles(&[0.0, -0.0, 0.1, 1.0 / 3.0, -1e300, 5e-324, f64::MAX, f64::MIN, f64::NAN, f64::INFINITY])
            })
        },
        Case {
            narrower: infinite,
            ..pg("REAL", {
                doubles(&[0.0, -0.0, 0.1, 16_777_217.0, tiny, huge, -huge, 1e39, 1e-60, f64::NAN, f64::INFINITY])
            })
        },
        pg("CHAR(4)", texts(STRINGS)),
        pg("VARCHAR(4)", texts(STRINGS)),
        pg("TEXT", texts(STRINGS)),
        pg("VARCHAR(4) COLLATE loose", texts(STRINGS)),
        pg("public.citext", texts(STRINGS)),
        pg("BYTEA", blobs(&bytes)),
        pg("DATE", dates(&["0001-01-01", "9999-12-31", "2024-02-29", "0000-01-01"])),
        pg("TIME", times(&["00:00:00", "23:59:59.999999", "24:00:00", "24:00:01", "-00:00:01", "838:59:59"])),
        pg("TIME(3)", times(&["10:00:00.123", "10:00:00.1234"])),
        pg("TIMESTAMP", civils(&["0001-01-01T00:00:00", "9999-12-31T23:59:59.999999", "2024-03-31T02:30:00.000001"])),
        pg("TIMESTAMP(3)", civils(&["2024-02-29T23:59:59.123", "2024-02-29T23:59:59.1234"])),
        pg("TIMESTAMPTZ", {
            instants(&["0001-01-01T00:00:00Z", "9999-12-30T22:00:00Z", "2024-03-31T01:30:00.000001Z"])
        }),
        pg("TIMESTAMPTZ(3)", instants(&["2024-02-29T23:59:59.123Z", "2024-02-29T23:59:59.1234Z"])),
        pg("UUID", texts(&uuids)),
        pg("INET", texts(&hosts)),
        pg("CIDR", texts(&networks)),
        pg("JSON", json_values()),
        pg("JSONB", json_values()),
        pg("mood", texts(&["a", "B", "b", "it's", "x,y", "", "z", "a "])),
        pg("code", texts(STRINGS)),
        pg("codes", texts(STRINGS)),
        pg("amount", decimals(&["999.99", "1000", "0.01"])),
        Case {
            narrower: &[("'{{1}}'", "it has two dimensions")],
            ..arrays(
                "INTEGER[]",
                &[
                    ("[]", "{}"),
                    ("[1, null, -2147483648]", "{1,NULL,-2147483648}"),
                    ("[2147483648]", "{2147483648}"),
                    ("[1.5]", "{1.5}"),
                    ("[[1]]", "{{1}}"),
                    ("1", "1"),
                ],
            )
        },
        arrays(
            "BIGINT[]",
            &[("[9223372036854775807]", "{9223372036854775807}"), ("[9223372036854775808]", "{9223372036854775808}")],
        ),
        arrays("BOOLEAN[]", &[("[true, null, false]", "{t,NULL,f}")]),
        arrays("NUMERIC[]", &[(r#"["1.50", "0"]"#, "{1.50,0}"), (r#"["1e5"]"#, "{1e5x}"), ("[1.50]", "{1.50}")]),
        arrays("NUMERIC(5,2)[]", &[(r#"["1.50", null]"#, "{1.5,NULL}"), (r#"["1000"]"#, "{1000}")]),
        arrays(
            "DOUBLE PRECISION[]",
            &[("[0.1, 1e300, -0.0, 5e-324]", "{0.1,1e300,-0.0,5e-324}"), ("[1e400]", "{1e400}")],
        ),
        arrays("REAL[]", &[("[0.5, null]", "{0.5,NULL}"), ("[0.1]", "{0.1}"), ("[1e39]", "{1e39}")]),
        arrays(
            "TEXT[]",
            &[
                (
                    r#"["", "NULL", null, "a b", "it's", "\"", "\\", "{,}", "é🎉", "\n"]"#,
                    "{\"\",\"NULL\",NULL,a b,it's,\"\\\"\",\"\\\\\",\"{,}\",é🎉,\"\n\"}",
                ),
                ("[1]", "{1"),
            ],
        ),
        arrays("VARCHAR(4)[]", &[(r#"["abcd"]"#, "{abcd}"), (r#"["abcde"]"#, "{abcde}")]),
        arrays("CHAR(4)[]", &[(r#"["ab"]"#, "{ab}"), (r#"["abcde"]"#, "{abcde}")]),
        arrays("BYTEA[]", &[(r#"["\\x00ff", "\\x"]"#, r#"{"\\x00ff","\\x"}"#), (r#"["\\xg"]"#, r#"{"\\xg"}"#)]),
        arrays("DATE[]", &[(r#"["2024-02-29", null]"#, "{2024-02-29,NULL}"), (r#"["2023-02-29"]"#, "{2023-02-29}")]),
        arrays("TIME[]", &[(r#"["24:00:00"]"#, "{24:00:00}"), (r#"["25:00:00"]"#, "{25:00:00}")]),
        arrays("TIMESTAMP[]", &[(r#"["2024-03-31T02:30:00.5"]"#, "{2024-03-31 02:30:00.5}")]),
        arrays("TIMESTAMPTZ[]", &[(r#"["2024-03-31T01:30:00.000001Z"]"#, "{2024-03-31 03:30:00.000001+02}")]),
        arrays(
            "UUID[]",
            &[
                (r#"["A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11"]"#, "{A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11}"),
                (r#"["a"]"#, "{a}"),
            ],
        ),
        arrays("INET[]", &[(r#"["10.0.0.1", "::1/64"]"#, "{10.0.0.1,::1/64}")]),
        arrays("CIDR[]", &[(r#"["10.0.0.0/8"]"#, "{10.0.0.0/8}"), (r#"["10.0.0.1/8"]"#, "{10.0.0.1/8}")]),
        arrays("mood[]", &[(r#"["it's", "x,y", "", null]"#, "{it's,\"x,y\",\"\",NULL}"), (r#"["z"]"#, "{z}")]),
        arrays("public.citext[]", &[(r#"["A", "a"]"#, "{A,a}")]),
    ]
}

/// The types that are carried, in the order of the documentation.
pub async fn cases(h: &Harness) -> Vec<Case> {
    let mut cases = h.of(on_either_mysql as fn() -> Vec<Case>, on_postgres, on_sqlite)();
    if h.server().await == "MariaDB" {
        on_mariadb(&mut cases);
    }
    cases
}

/// Types that are refused when the table is enabled.
pub fn refused(h: &Harness) -> &'static [&'static str] {
    if h.is_postgres() {
        &[
            "INTERVAL",
            "TIMETZ",
            "MONEY",
            "BIT(3)",
            "BIT VARYING(3)",
            "XML",
            "POINT",
            "INT4RANGE",
            "TSVECTOR",
            "MACADDR",
            "OID",
            "NAME",
            "BPCHAR",
            "CHAR(4) COLLATE loose",
            "NUMERIC(3,-2)",
            "JSONB[]",
            "code[]",
            "INTEGER GENERATED ALWAYS AS (id + 1) STORED",
            "BIGINT GENERATED ALWAYS AS IDENTITY",
            "BIGSERIAL",
        ]
    } else if h.is_mysql() {
        &[
            "FLOAT(7,2)",
            "DOUBLE(7,2)",
            "SET('','a')",
            "VARCHAR(9) CHARACTER SET sjis",
            "POINT",
            "GEOMETRY",
            "INT GENERATED ALWAYS AS (id + 1) STORED",
            "BIGINT NOT NULL UNIQUE AUTO_INCREMENT",
        ]
    } else {
        &["STRING", "POINT", "INTEGER GENERATED ALWAYS AS (id + 1) STORED"]
    }
}
