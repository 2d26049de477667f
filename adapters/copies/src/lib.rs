//! Git working copies on leased hosts
