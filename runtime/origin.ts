// Whether a browser's page comes from elsewhere: a page of another site must not use a person's browser to speak to us. Programs send no Origin.

/** Pages of the same host, on any port, are at home: the dashboards have a port of their own. */
export function isForeignOrigin(origin: string, host: string): boolean {
  return origin !== '' && hostnameOf(origin) !== hostnameOf(`http://${host}`)
}

function hostnameOf(url: string): string | undefined {
  return URL.canParse(url) ? new URL(url).hostname : undefined
}
