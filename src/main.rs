fn main() -> std::process::ExitCode {
    wharfinger::cli::main()
}
