// An echo server for WebSocket: node echo.js PATH_OF_WS PORT. It takes messages of any size in any number of fragments.
'use strict';
const { WebSocketServer } = require(process.argv[2]);
const server = new WebSocketServer({
  host: '127.0.0.1', port: Number(process.argv[3]), perMessageDeflate: true,
  maxPayload: 64 << 20, maxFragments: 0, maxBufferedChunks: 0,
});
server.on('connection', (c) => {
  c.on('message', (data, binary) => c.send(data, { binary }));
  c.on('error', () => {}); // what is wrong closes the connection, as it should
});
server.on('error', (err) => { console.error(err); process.exit(1); });
