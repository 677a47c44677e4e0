// panva's oidc-provider as tests need it: accounts with groups, the console's client, a client of CI, rotating keys.
// Its only argument is JSON: { port, redirectUri, audience, keys: [JWK], idTokenTtl }.
import Provider from 'oidc-provider';

const { port, redirectUri, audience, keys, tokenTtl = 600 } = JSON.parse(process.argv[2]);
const GROUPS = { anna: ['sre'], ben: ['acme', 'bowling'], carl: ['bowling'] };

const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [
    {
      client_id: 'console',
      id_token_signed_response_alg: keys[0].alg,
      client_secret: 'the-secret-of-the-console-client',
      redirect_uris: [redirectUri],
      grant_types: ['authorization_code'],
      response_types: ['code'],
    },
    {
      client_id: 'ci',
      id_token_signed_response_alg: keys[0].alg,
      client_secret: 'the-secret-of-the-ci-client',
      redirect_uris: [],
      grant_types: ['client_credentials'],
      response_types: [],
    },
  ],
  jwks: { keys },
  cookies: { keys: ['tests'] },
  pkce: { required: () => true },
  conformIdTokenClaims: false,
  claims: { openid: ['sub'], email: ['email', 'email_verified'], groups: ['groups'] },
  scopes: ['openid', 'email', 'groups'],
  findAccount: async (ctx, id) => ({
    accountId: id,
    claims: async () => ({
      sub: id,
      email: `${id}@example.com`,
      email_verified: true,
      ...(GROUPS[id] && { groups: GROUPS[id] }),
    }),
  }),
  extraTokenClaims: async (ctx, token) => ({ groups: token.scope === 'deploy' ? ['acme'] : ['bowling'] }),
  ttl: { ClientCredentials: tokenTtl, AccessToken: 600, IdToken: 600, Interaction: 600, Session: 600, Grant: 600 },
  features: {
    devInteractions: { enabled: true },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      defaultResource: async (ctx, client) => (client.clientId === 'ci' ? audience : undefined),
      useGrantedResource: async () => true,
      getResourceServerInfo: async (ctx, resource) => ({
        scope: 'deploy other',
        audience: resource,
        accessTokenFormat: 'jwt',
        jwt: { sign: { alg: keys[0].alg } },
      }),
    },
  },
});
provider.listen(port, '127.0.0.1', () => console.log('ready'));
