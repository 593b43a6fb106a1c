// Package crypt makes and checks password hashes of crypt(3): SHA-512-crypt ($6$) and SHA-256-crypt ($5$), by Ulrich
// Drepper's specification "Unix crypt using SHA-256 and SHA-512", version 0.6. These are what `openssl passwd -6` and
// every Linux system write.
package crypt
