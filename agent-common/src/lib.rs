//! Wire contract.
#![no_std]
