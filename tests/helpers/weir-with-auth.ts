// A running Weir that asks who somebody is, and what its operator does: devices with their tokens by the command line, questions with the admin token.
import mqtt, { type IClientOptions, type MqttClient } from 'mqtt'
import { type OpenOptions, TestSocket } from './websocket.ts'
import { runWeir, type StartOptions, startWeir, type WeirProcess } from './weir-process.ts'

export const adminToken = 'the-admin-of-these-tests-5f1d'

export interface WeirWithAuth extends WeirProcess {
  readonly gateway: string
  /** A new device's token. */
  addDevice(name: string, ...words: string[]): Promise<string>
  device(...words: string[]): ReturnType<typeof runWeir>
  /** With the admin token. */
  ask(path: string, init?: RequestInit): Promise<Response>
  post(device: string, body: string, token?: string): Promise<Response>
  /** Over TCP, unless `url` says where. */
  connect(name: string, token: string, options?: IClientOptions, url?: string): Promise<MqttClient>
  socket(path: string, options?: OpenOptions): TestSocket
}

export async function startWeirWithAuth(options: StartOptions = {}): Promise<WeirWithAuth> {
  const weir = await startWeir({
    ...options,
    env: { WEIR_AUTH: 'required', WEIR_ADMIN_TOKEN: adminToken, ...options.env },
  })
  const { hostname, port } = new URL(weir.urls.gateway!)
  const gateway = `http://${hostname}:${port}`
  const device = (...words: string[]): ReturnType<typeof runWeir> => runWeir(['device', ...words, '--data', weir.data])
  return {
    ...weir,
    gateway,
    device,
    async addDevice(name, ...words) {
      const { code, stdout, stderr } = await device('add', name, '--json', ...words)
      if (code !== 0) throw new Error(`weir device add ${name} ended with ${code}: ${stderr}`)
      return (JSON.parse(stdout) as { token: string }).token
    },
    ask: (path, init = {}) =>
      fetch(`${weir.http}${path}`, { ...init, headers: { ...init.headers, authorization: `Bearer ${adminToken}` } }),
    post: (name, body, token) =>
      fetch(`${gateway}/v1/telemetry/${name}`, {
        method: 'POST',
        body,
        headers: {
          'content-type': 'application/json',
          ...(token !== undefined && { authorization: `Bearer ${token}` }),
        },
      }),
    connect: (name, token, more = {}, url = `mqtt://${weir.mqtt.host}:${weir.mqtt.port}`) =>
      mqtt.connectAsync(url, {
        clientId: name,
        username: name,
        password: token,
        reconnectPeriod: 0,
        protocolVersion: 4,
        ...more,
      }),
    socket: (path, given) => new TestSocket({ host: hostname, port: Number(port) }, path, given),
  }
}
