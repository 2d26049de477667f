/// One thread allocates, and another one frees, request after request: glibc's allocator has its threads wait for each other there,
/// and a third of the throughput goes with it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    wharfinger::cli::main()
}
