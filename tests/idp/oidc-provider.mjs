// The certified `oidc-provider` as the tests need it: everybody signs in as whom the header X-User says, and whatever is
// asked for is granted. Prints one line for each request: METHOD PATH.
//
//   oidc-provider.mjs HOME PORT KEYS CALLBACK…
//
// HOME has node_modules; KEYS is a file with a private key set, made when it is not there. Listens on loopback: by HTTPS
// when TLS_CERTIFICATE and TLS_KEY name files.

import { createServer } from 'node:http';
import { createServer as createTlsServer } from 'node:https';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { generateKeyPairSync, randomUUID } from 'node:crypto';

const [home, port, keysFile, ...callbacks] = process.argv.slice(2);
const { default: Provider } = await import(`${home}/node_modules/oidc-provider/lib/index.js`);

if (!existsSync(keysFile)) {
  const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
  const key = { ...privateKey.export({ format: 'jwk' }), kid: randomUUID(), use: 'sig', alg: 'RS256' };
  writeFileSync(keysFile, JSON.stringify({ keys: [key] }), { mode: 0o600 });
}

const audience = 'https://bmi.example.org';
const groups = {
  ada: ['ops'], lin: ['lab'], eve: [], viewer: [], member: [], manager: [], stranger: [], auditor: [],
  rosa: [], benno: [],
};
const tls = process.env.TLS_CERTIFICATE && {
  cert: readFileSync(process.env.TLS_CERTIFICATE), key: readFileSync(process.env.TLS_KEY),
};
const issuer = `${tls ? 'https' : 'http'}://127.0.0.1:${port}`;
const client = {
  redirect_uris: callbacks,
  grant_types: ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'],
  response_types: ['code'],
};
const provider = new Provider(issuer, {
  clients: [
    { ...client, client_id: 'bmi', client_secret: 'the-secret-of-bmi' },
    // A program of somebody, which calls the API with access tokens.
    { ...client, client_id: 'app', token_endpoint_auth_method: 'none' },
  ],
  jwks: JSON.parse(readFileSync(keysFile, 'utf8')),
  cookies: { keys: ['a cookie key of the tests'] },
  claims: { openid: ['sub'], profile: ['name'], email: ['email'], groups: ['groups'] },
  pkce: { required: () => true },
  ttl: { AccessToken: 600, Grant: 600, IdToken: 600, Interaction: 600, Session: 600, DeviceCode: 60 },
  features: {
    devInteractions: { enabled: false },
    deviceFlow: { enabled: true },
    resourceIndicators: {
      enabled: true,
      useGrantedResource: () => true,
      getResourceServerInfo: (_, resource) => ({
        scope: 'openid groups', audience: resource, accessTokenFormat: 'jwt', accessTokenTTL: 600,
      }),
    },
  },
  extraTokenClaims: (_, token) => (
    token.accountId ? { groups: groups[token.accountId], name: `The person ${token.accountId}` } : undefined
  ),
  findAccount: (_, id) => (id in groups ? {
    accountId: id,
    claims: () => ({ sub: id, name: `The person ${id}`, email: `${id}@example.org`, groups: groups[id] }),
  } : undefined),
  loadExistingGrant: async (ctx) => {
    const grant = new provider.Grant({
      clientId: ctx.oidc.client.clientId, accountId: ctx.oidc.session.accountId,
    });
    grant.addOIDCScope('openid profile email groups offline_access');
    grant.addResourceScope(audience, 'openid groups');
    grant.addResourceScope('https://other.example.org', 'openid groups');
    await grant.save();
    return grant;
  },
  interactions: { url: (_, interaction) => `/interaction/${interaction.uid}` },
});

const serve = provider.callback();
const answer = async (request, response) => {
  process.stdout.write(`${request.method} ${request.url.split('?')[0]}\n`);
  if (!request.url.startsWith('/interaction/')) {
    serve(request, response);
    return;
  }
  const user = request.headers['x-user'];
  const result = user in groups
    ? { login: { accountId: user } }
    : { error: 'access_denied', error_description: 'nobody' };
  await provider.interactionFinished(request, response, result, { mergeWithLastSubmission: false });
};
const server = tls ? createTlsServer(tls, answer) : createServer(answer);
server.listen(Number(port), '127.0.0.1', () => process.stdout.write('listening\n'));
