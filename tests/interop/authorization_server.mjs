// A real authorization server on loopback: oidc-provider, where everybody who asks is "mailbox" and consents at once,
// but for the login hint "unwilling". Settings come as JSON in the first argument; a line is printed once it listens.
import { createPublicKey } from 'node:crypto';
import { importSPKI, jwtVerify } from 'jose';
import Provider from 'oidc-provider';

const { port, certificate, key, lifetime } = JSON.parse(process.argv[2]);
const issuer = `http://127.0.0.1:${port}`;
const redirects = { redirect_uris: ['http://127.0.0.1/'], application_type: 'native' };
const people = ['authorization_code', 'refresh_token', 'urn:ietf:params:oauth:grant-type:device_code'];
const own = { redirect_uris: [], response_types: [], grant_types: ['client_credentials'] };
const jwk = { ...createPublicKey(certificate).export({ format: 'jwk' }), use: 'sig' };
const JWT_BEARER = 'urn:ietf:params:oauth:grant-type:jwt-bearer';

const provider = new Provider(issuer, {
  clients: [
    { client_id: 'desktop', client_secret: 'a secret: with + and %', grant_types: people, ...redirects },
    { client_id: 'public', token_endpoint_auth_method: 'none', grant_types: people, ...redirects },
    { client_id: 'robot', client_secret: 'robot secret', ...own },
    { client_id: 'certified', token_endpoint_auth_method: 'private_key_jwt', jwks: { keys: [jwk] }, ...own },
    { client_id: 'service', client_secret: 'not used', ...own, grant_types: [JWT_BEARER] },
    { client_id: 'dovecot', client_secret: 'dovecot', redirect_uris: [], response_types: [], grant_types: [] },
  ],
  scopes: ['offline_access', 'mail.send'],
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    deviceFlow: { enabled: true },
    introspection: { enabled: true, allowedPolicy: () => true },
    revocation: { enabled: true },
  },
  findAccount: (ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  interactions: { url: (ctx, interaction) => `/interaction/${interaction.uid}` },
  issueRefreshToken: () => true,
  rotateRefreshToken: true,
  extraTokenClaims: (ctx, token) => ({ username: token.accountId ?? token.clientId }),
  ttl: { AccessToken: lifetime, ClientCredentials: lifetime, Grant: 3600, Interaction: 600, Session: 600 },
  cookies: { keys: ['test'] },
  pkce: { required: () => true },
});

// RFC 7523 as Google has it: the mailbox is the subject.
provider.registerGrantType(JWT_BEARER, async (ctx) => {
  const audience = `${issuer}/google/token`;
  const { payload } = await jwtVerify(ctx.oidc.params.assertion, await importSPKI(key, 'RS256'), { audience });
  const token = new provider.AccessToken({ accountId: payload.sub, client: ctx.oidc.client, scope: payload.scope });
  token.grantId = await new provider.Grant({ accountId: payload.sub, clientId: ctx.oidc.client.clientId }).save();
  ctx.body = { access_token: await token.save(), expires_in: lifetime, token_type: 'Bearer' };
}, ['assertion', 'scope']);

provider.use(async (ctx, next) => {
  // Google's token endpoint knows a service account by its assertion alone.
  if (ctx.path === '/google/token') {
    ctx.path = '/token';
    ctx.req.headers.authorization = `Basic ${Buffer.from('service:not+used').toString('base64')}`;
  }
  if (!ctx.path.startsWith('/interaction/')) return next();
  const { params, prompt } = await provider.interactionDetails(ctx.req, ctx.res);
  if (params.login_hint === 'unwilling') {
    const no = { error: 'access_denied', error_description: 'the person said no' };
    return provider.interactionFinished(ctx.req, ctx.res, no);
  }
  if (prompt.name === 'login') {
    return provider.interactionFinished(ctx.req, ctx.res, { login: { accountId: 'mailbox' } });
  }
  const grant = new provider.Grant({ accountId: 'mailbox', clientId: params.client_id });
  grant.addOIDCScope(params.scope);
  return provider.interactionFinished(ctx.req, ctx.res, { consent: { grantId: await grant.save() } });
});

provider.listen(port, '127.0.0.1', () => console.log('listening'));
