// Served at /extensions/tiny_v3/v3.js
