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

const PRODUCTS: [&str; 10] = [
    "command line",
    "GitHub, Forgejo, Gitea",
    "Buildkite",
    "GitLab, shell executor",
    "Jenkins, step sh",
    "GitLab, custom executor",
    "Jenkins, step lock",
    "Buildbot",
    "Ansible",
    "pytest",
];
/// Its release does not say how the work went.
const WITHOUT_OUTCOME: &str = "Jenkins, step lock";

#[test]
fn each_product_has_the_seven_cases_and_leaves_nothing_behind() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ci-cases.md")).unwrap();
    let tables: Vec<&str> = page.split("<!-- table: ").skip(1).collect();
    let name = |table: &&str| table.lines().next().unwrap().trim_end_matches(" -->").to_owned();
    assert_eq!(tables.iter().map(name).collect::<Vec<_>>(), PRODUCTS);
    for (product, table) in PRODUCTS.into_iter().zip(tables) {
        let end = if product == WITHOUT_OUTCOME { "RELEASED ABANDONED" } else { "RELEASED OK" };
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
            assert!(row[2] == "2" && row[3].ends_with(end), "{product}: {row:?}");
        }
    }
}
