//! docs/ci-cases.md has all seven cases of each CI product, and no case leaves a process behind.

use std::path::Path;

const CASES: [&str; 7] = [
    "success",
    "command fails",
    "host killed midway",
    "copy mangled midway",
    "cancelled in the CI product",
    "agent killed (SIGKILL)",
    "broker killed and started again",
];

#[test]
fn each_product_has_the_seven_cases_and_leaves_nothing_behind() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ci-cases.md")).unwrap();
    let tables: Vec<&str> = page.split("<!-- table: ").skip(1).collect();
    assert!(tables.len() >= 3, "{} products", tables.len());
    for table in tables {
        let product = table.lines().next().unwrap();
        let rows: Vec<Vec<&str>> = table
            .split("<!-- end -->")
            .next()
            .unwrap()
            .lines()
            .filter(|line| line.starts_with("| ") && !line.starts_with("| case "))
            .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
            .collect();
        let cases: Vec<&str> = rows.iter().map(|row| row[0]).collect();
        assert_eq!(cases, CASES, "{product}");
        for row in &rows {
            assert_eq!(row[5], "0", "{product}: {} leaves processes behind", row[0]);
        }
        // The two that the broker is for: the work began again, and the job succeeded.
        for row in rows.iter().filter(|row| ["host killed midway", "copy mangled midway"].contains(&row[0])) {
            assert!(row[2] == "2" && row[3].ends_with("RELEASED OK"), "{product}: {row:?}");
        }
    }
}
