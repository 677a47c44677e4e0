'use strict';

const http = require('node:http');
const net = require('node:net');

/** Serve `listener` on a free port; resolves to its URL and how to stop it. */
async function serve(listener) {
  const server = http.createServer(listener);
  await new Promise((ready) => server.listen(0, '127.0.0.1', ready));
  return { url: `http://127.0.0.1:${server.address().port}`, stop: () => stop(server) };
}

/** A server that speaks no HTTP of its own: `onData(socket, data)`. */
async function serveRaw(onData) {
  const sockets = new Set();
  const server = net.createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {}).on('close', () => sockets.delete(socket));
    socket.on('data', (data) => onData(socket, data));
  });
  await new Promise((ready) => server.listen(0, '127.0.0.1', ready));
  const url = `http://127.0.0.1:${server.address().port}`;
  return { url, sockets, stop: () => (sockets.forEach((socket) => socket.destroy()), stop(server)) };
}

function stop(server) {
  server.closeAllConnections?.();
  return new Promise((stopped) => server.close(stopped));
}

/** One request; status, headers and body of its answer. */
function get(url, { headers = {}, method = 'GET', agent } = {}) {
  return new Promise((resolve, reject) => {
    const request = http.request(url, { headers, method, agent }, (response) => {
      let body = '';
      response.setEncoding('utf8').on('data', (chunk) => (body += chunk));
      response.on('end', () => resolve({ status: response.statusCode, headers: response.headers, body }));
    });
    request.on('error', reject).end();
  });
}

module.exports = { serve, serveRaw, get };
